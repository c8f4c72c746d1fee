"""The proxy of this node, and what each sandbox may reach through it."""

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from agent.client import AgentClient, AgentError, ErrorCode
from agent.egress import PORT
from agent.egress_client import EgressClient, EgressError, PeerGone, PeerTooOld, WayOut
from servicekit import calls
from servicekit.errors import ServiceError, Unavailable
from services.provider.driver import Network
from services.provider.errors import AgentTooOld, ProxyPortTaken

_log = logging.getLogger(__name__)

_AGAIN: Final = 0.25
"""Seconds between two looks for the proxy."""
_PATIENCE: Final = 5.0
"""Seconds that a proxy which is just starting again is waited for."""
_RETRY: Final = 5.0
"""Seconds until a sandbox that has no way out yet is tried again."""


class WaysOut:
    """Keeps a connection to the proxy, which may come later, and come back.

    `networks` are addresses that are not public and may be reached all the same.
    """

    def __init__(self, socket: Path, networks: tuple[str, ...]) -> None:
        self._socket = socket
        self._networks = networks
        self._client: EgressClient | None = None
        self._unfit = False
        """The last one that came cannot work here."""
        self._up = asyncio.Event()
        self._missing = asyncio.Event()

    @asynccontextmanager
    async def kept(self, restore: Callable[[], Awaitable[bool]]) -> AsyncIterator[None]:
        """While the block runs, have `restore` called for every proxy that comes.

        It answers whether all that should have a way out has one; else it is called again.
        """
        with calls.detached():
            task = asyncio.create_task(self._keep(restore))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def available(self) -> bool:
        """Whether there is a proxy that can work."""
        if self._unfit or not self._socket.exists():
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._up.wait()
        return self._client is not None

    def later(self) -> None:
        """Something has no way out yet that should have one."""
        self._missing.set()

    async def let(self, uid: str, network: Network, agent: AgentClient) -> int:
        """Put this in force; says how many connections it cut.

        Raises ProxyPortTaken, AgentTooOld, Unavailable: then nothing gets out.
        """
        if not network.rules:
            return await self.shut(uid, agent)
        descriptor = -1
        try:
            try:
                # First, so that what connects waits, instead of being refused, for the proxy.
                descriptor = await agent.listen(PORT)
            except (AgentError, PeerGone) as error:
                await self.shut(uid)
                raise _failure(uid, error) from error
            return await self.open(uid, network, agent.pid, (descriptor, agent.pidfd))
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    async def open(self, uid: str, network: Network, pid: int, descriptors: tuple[int, int]) -> int:
        """As `let`, of whoever has that pid; the listener and a pidfd stay the caller's.

        It ends with that process. Raises Unavailable.
        """
        way = WayOut(
            uid=uid,
            rules=[(each.host, each.ports) for each in network.rules],
            networks=self._networks,
            request_id=calls.current().correlation_id,
        )
        async with self._connected() as client:
            return await client.open(way, pid, descriptors)

    async def shut(self, uid: str, agent: AgentClient | None = None) -> int:
        """Nothing gets out of it any more. Raises Unavailable."""
        if self._socket.exists():
            async with self._connected() as client:
                await client.close(uid)
        if agent:
            with suppress(AgentError, PeerGone):
                await agent.close_listener()
        return 0

    async def open_ways(self) -> tuple[str, ...]:
        """The uids that have one. Raises Unavailable."""
        async with self._connected() as client:
            return await client.list()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[EgressClient]:
        await self.available()
        if self._client is None:
            raise Unavailable("the proxy is away", service="egress")
        try:
            yield self._client
        except PeerGone as error:
            raise Unavailable("the proxy is away", service="egress") from error
        except EgressError as error:
            raise Unavailable("the proxy refused the sandbox", service="egress") from error

    async def _keep(self, restore: Callable[[], Awaitable[bool]]) -> None:
        while True:
            try:
                async with EgressClient.connect(self._socket) as client:
                    self._client, self._unfit = client, False
                    self._up.set()
                    await self._while_there(client, restore)
            except (EgressError, PeerTooOld):
                self._unfit = True
            except PeerGone:
                pass
            except Exception:  # Nobody else would ever look for it again.
                _log.exception("the proxy cannot be talked to")
            self._client = None
            self._up.clear()
            await asyncio.sleep(_AGAIN)

    async def _while_there(
        self, client: EgressClient, restore: Callable[[], Awaitable[bool]]
    ) -> None:
        gone = asyncio.create_task(client.gone())
        self._missing.set()
        try:
            while not gone.done():
                missing = asyncio.create_task(self._missing.wait())
                try:
                    await asyncio.wait((gone, missing), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    missing.cancel()
                if gone.done():
                    return
                self._missing.clear()
                if not await _tried(restore):
                    self._missing.set()
                    await asyncio.wait((gone,), timeout=_RETRY)
        finally:
            gone.cancel()


async def _tried(restore: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await restore()
    except ServiceError as error:
        _log.warning("cannot restore the ways out now: %s", error)
    except Exception:
        _log.exception("cannot restore the ways out")
    return False


def _failure(uid: str, error: AgentError | PeerGone) -> ServiceError:
    if isinstance(error, AgentError) and error.code is ErrorCode.BAD_REQUEST:
        return AgentTooOld(
            "the sandbox was started by an earlier version, which has no way out",
            remedy="End what runs in it; after `idle_timeout` without a process it starts anew.",
            uid=uid,
        )
    if isinstance(error, AgentError) and error.errno == errno.EADDRINUSE:
        return ProxyPortTaken("a program listens on the proxy's port", uid=uid, port=str(PORT))
    return Unavailable("the agent did not open a way out", service="agent")
