"""The agents of this node's environments, and the connections to them."""

import asyncio
import os
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from agent.client import AgentClient, AgentError, ErrorCode, PeerGone, PeerTooOld
from agent.handle import Handle
from services.executor.background import Background
from services.executor.errors import (
    AgentTooOld,
    AgentUnavailable,
    EnvironmentDormant,
    HandleInvalid,
    HandleStale,
)

R = TypeVar("R", bound=Any)

TRIES: Final = 8
"""How often agents are asked that break off. Each fork of an environment in which nothing runs has
its agent leave, and several may come before a command does."""
_LOCAL: Final = "local"
_LINGER: Final = 5.0
"""Seconds that an unused connection stays, for the next call. Short, as it keeps an agent up."""


class _Link:
    """One connection and those who use it."""

    def __init__(self) -> None:
        self.users = 0
        self.idle = asyncio.Event()
        self.client: asyncio.Future[AgentClient] = asyncio.get_running_loop().create_future()

    @property
    def broken(self) -> bool:
        """The connection was there and has ended, though it may still have users."""
        client = self.client
        if not client.done() or client.cancelled() or client.exception():
            return False
        return client.result().gone.is_set()


class Agents:
    """Finds agents by their sockets. One connection an environment is shared by all its users."""

    def __init__(
        self,
        runtime: Path,
        node: str,
        agent_uid: int,
        background: Background,
        drivers: Collection[str] = (_LOCAL,),
    ) -> None:
        self._sockets = runtime / "a"
        self._beside = runtime / "f"
        self._node = node
        self._drivers = frozenset(drivers)
        self._agent_uids = frozenset((agent_uid, os.geteuid()))
        self._background = background
        self._links: dict[str, _Link] = {}

    def environment(self, handle: bytes) -> str:
        """The uid in a handle. Raises HandleInvalid when it is not one of this node's."""
        return self._read(handle).uid

    def settled(self, request: R) -> R:
        """What is asked, whichever handle of its environment it came with: for the ledger, as a
        retry may bring a later one."""
        found = self._read(request.handle)
        if not found.locator:
            return request
        asked: R = type(request)()
        asked.CopyFrom(request)
        asked.handle = found.uid.encode()
        return asked

    async def in_force(self, handle: bytes) -> str:
        """As `environment`, when the handle is the one in force; that of one that does not move is.

        Raises HandleInvalid, HandleStale, and as `awake`.
        """
        found = self._read(handle)
        if found.locator:
            async with self.awake(found.uid) as agent:
                await self.check(agent, handle)
        return found.uid

    async def check(self, agent: AgentClient, handle: bytes) -> None:
        """Raises HandleStale, HandleInvalid when a handle that moves is not the one in force."""
        found = self._read(handle)
        if not found.locator:
            return
        try:
            await agent.handle(handle)
        except AgentError as error:
            if error.code is ErrorCode.HANDLE_STALE:
                raise HandleStale(
                    "the environment has gone on since", uid=found.uid, generation=str(error)
                ) from None
            raise HandleInvalid("handle", "it is not of this environment") from error

    async def moved(self, uid: str) -> bytes:
        """The handle in force after a command, where handles move; empty where they do not, or
        nobody tells now: the provider does when it is asked."""
        if not (self._beside / uid).exists():
            return b""
        try:
            async with self.awake(uid) as agent:
                return await agent.handle(b"")
        except (AgentError, AgentUnavailable, AgentTooOld, EnvironmentDormant):
            return b""

    def _read(self, handle: bytes) -> Handle:
        try:
            found = Handle.decode(handle)
        except ValueError:
            raise HandleInvalid("handle", "not a handle of a known version") from None
        if found.driver not in self._drivers:
            raise HandleInvalid("handle", "of another driver", driver=found.driver)
        if found.driver == _LOCAL and (self._beside / found.uid).exists():
            # An agent beside a stand-in: the environment is that driver's.
            raise HandleInvalid("handle", "of another driver", driver=found.driver)
        if self._node and found.node != self._node:
            raise HandleInvalid("handle", "of another node", node=found.node)
        if not found.locator and self._whose(found.uid) not in ("", found.driver):
            raise HandleInvalid("handle", "the environment is another driver's")
        return found

    def _whose(self, uid: str) -> str:
        """The driver that an agent is of; empty where there is none.

        Where it is not of the node's own sandboxes its socket is a link into its driver's folder.
        Handles with a locator are the agent's own to judge.
        """
        try:
            return (self._sockets / uid).readlink().parent.name
        except FileNotFoundError:
            return ""
        except OSError:
            return _LOCAL

    def active(self, uid: str) -> bool:
        """Whether there is a socket; its agent may be gone."""
        return (self._sockets / uid).exists()

    @asynccontextmanager
    async def awake(self, uid: str) -> AsyncIterator[AgentClient]:
        """For what a caller wants. Raises EnvironmentDormant, AgentUnavailable, AgentTooOld."""
        link, client = await self._found(uid)
        try:
            yield client
        except PeerGone as error:
            raise AgentUnavailable("the agent broke off", uid=uid) from error
        except PeerTooOld:
            raise AgentTooOld("the agent is of another version", uid=uid) from None
        finally:
            self._release(link)

    async def _found(self, uid: str) -> tuple[_Link, AgentClient]:
        """Raises as `awake`. One that leaves just then is no agent: another may have come."""
        gone: PeerGone | None = None
        for _ in range(TRIES):
            link = self._link(uid)
            try:
                return link, await self._connected(link)
            except PeerGone as error:
                if absent(error):
                    raise EnvironmentDormant("the environment is dormant", uid=uid) from None
                gone = error
                if slow(error):
                    break
            except PeerTooOld:
                raise AgentTooOld("the agent is of another version", uid=uid) from None
        raise AgentUnavailable("the agent does not answer", uid=uid) from gone

    @asynccontextmanager
    async def link(self, uid: str) -> AsyncIterator[AgentClient]:
        """For the executor itself. Raises PeerGone, PeerTooOld."""
        link = self._link(uid)
        client = await self._connected(link)
        try:
            yield client
        finally:
            self._release(link)

    def _link(self, uid: str) -> _Link:
        link = self._links.get(uid)
        if link is None or link.broken:
            link = self._links[uid] = _Link()
            self._background.keep(self._serve(uid, link))
        link.users += 1
        link.idle.clear()
        return link

    async def _connected(self, link: _Link) -> AgentClient:
        try:
            return await asyncio.shield(link.client)
        except BaseException:
            self._release(link)
            raise

    def _release(self, link: _Link) -> None:
        link.users -= 1
        if not link.users:
            link.idle.set()

    async def _serve(self, uid: str, link: _Link) -> None:
        """Hold the connection until it ends, or nobody has used it for a while."""
        try:
            async with AgentClient.connect(self._sockets / uid, *self._agent_uids) as client:
                link.client.set_result(client)
                gone = asyncio.ensure_future(client.gone.wait())
                try:
                    while not gone.done() and not await self._unused(link, gone):
                        pass
                    self._forget(uid, link)
                finally:
                    gone.cancel()
        except (OSError, PeerTooOld) as error:
            self._forget(uid, link)
            if not link.client.done():
                told = isinstance(error, PeerGone | PeerTooOld)
                # Else it is of ours, as when no descriptor is left: nothing tells of the agent.
                link.client.set_exception(error if told else PeerGone(f"no connection: {error}"))
                link.client.exception()  # Whoever waited may be gone: that is no error.
        finally:
            self._forget(uid, link)
            link.client.cancel()

    async def _unused(self, link: _Link, gone: "asyncio.Future[Any]") -> bool:
        """Wait; true when it was unused for long enough."""
        idle = asyncio.ensure_future(link.idle.wait())
        try:
            await asyncio.wait((idle, gone), return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return False
            await asyncio.wait((gone,), timeout=_LINGER)
            return not link.users
        finally:
            idle.cancel()

    def _forget(self, uid: str, link: _Link) -> None:
        """The next user makes a new connection. Nothing awaits between the last look and this."""
        if self._links.get(uid) is link:
            del self._links[uid]


def absent(error: PeerGone) -> bool:
    """Whether nobody listened, so that there surely is no agent; else it may just be slow."""
    return isinstance(error.__cause__, ConnectionRefusedError | FileNotFoundError)


def slow(error: PeerGone) -> bool:
    """Whether there is an agent that did not answer in time."""
    return isinstance(error.__cause__, TimeoutError)
