"""The way out of one sandbox: its listener, its policy, and what goes through now."""

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.egress import log
from agent.egress.connection import Connection, Refused
from agent.egress.listener import Accepting
from agent.egress.names import Address, Host, shown
from agent.egress.policy import Match, Policy
from agent.egress.resolving import Resolve

_MOST: Final = 64
"""Connections of a sandbox at once; more wait in the kernel, and then at their client."""
_MOST_OF_ALL: Final = 2048
"""The same of all sandboxes; more are refused."""
_LOOKUPS: Final = 4
_LOOKUP: Final = 10.0
_CONNECT: Final = 10.0
_ATTEMPTS: Final = 4
_NO_ADDRESS: Final = "no_address"
_CLOSE_LOOK: Final = 0.05


@dataclass(slots=True)
class Shared:
    """What all doors have in common."""

    resolve: Resolve
    open: int = 0
    """Connections of all sandboxes."""


class Door:
    """`ended` is called when its sandbox is gone, or listens no longer."""

    def __init__(
        self, uid: str, shared: Shared, agent: tuple[int, int], ended: Callable[[], object]
    ) -> None:
        """`agent` is its pid and pidfd."""
        self.uid = uid
        self.pid, self._agent = agent
        self.policy = Policy()
        self.correlation = ""
        """Of the call that set the policy."""
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._accepting: Accepting | None = None
        self._tasks: dict[asyncio.Task[None], Connection] = {}
        self._lookups = asyncio.Semaphore(_LOOKUPS)
        self._closing: set[asyncio.Task[None]] = set()
        self._loop.add_reader(self._agent, ended)

    @property
    def connections(self) -> int:
        return len(self._tasks)

    @property
    def listening(self) -> bool:
        return self._accepting is not None and self._accepting.going_on

    def listen(self, listener: socket.socket) -> None:
        """Take what comes on it; it is the same as before, or stands in its place."""
        before = self._accepting
        if before and before.going_on and before.inode == os.fstat(listener.fileno()).st_ino:
            listener.close()
            return
        self._stop_accepting()
        self._accepting = Accepting(listener, _MOST, self._come)

    def allow(self, policy: Policy, correlation: str) -> int:
        """From now on this is in force. Cuts what it forbids; says how many that were."""
        self.policy, self.correlation = policy, correlation
        cut = 0
        for task, each in list(self._tasks.items()):
            if each.reached is None:
                continue  # It is checked when it is.
            host, port, address = each.reached
            if why := self._forbids(host, port, address):
                self.say("cut", host, port, why)
                task.cancel()
                cut += 1
        return cut

    def close(self) -> None:
        """Nothing gets in or out any more."""
        self._loop.remove_reader(self._agent)
        os.close(self._agent)
        self._stop_accepting()
        for task in list(self._tasks):
            task.cancel()

    def say(self, decision: str, host: Host | str, port: int, why: str) -> None:
        name = host if isinstance(host, str) else shown(host)
        log.say(
            "egress", decision=decision, uid=self.uid, host=name, port=port, why=why,
            **({"request_id": self.correlation} if self.correlation else {}),
        )  # fmt: skip

    async def reach(self, host: Host, port: int) -> tuple[socket.socket, Address]:
        """A connection to a host that the policy allows. Raises Refused; says what it decided."""
        try:
            sock, address, match = await self._reached(host, port)
        except Refused as refused:
            self.say("refused", host, port, refused.why)
            raise
        self.say("allowed", host, port, match.value)
        return sock, address

    async def _reached(self, host: Host, port: int) -> tuple[socket.socket, Address, Match]:
        match = self.policy.match(host, port)
        if match in (Match.NO, Match.OTHER_PORT):
            raise Refused(403, str(match.value))
        found = await self._look_up(host, port) if isinstance(host, str) else [host]
        match = self.policy.match(host, port)  # It may have changed meanwhile.
        if match in (Match.NO, Match.OTHER_PORT):
            raise Refused(403, str(match.value))
        reasons: dict[Address, str] = {}
        for each in found:
            reasons[each] = self.policy.forbids(each, match)
        allowed = [each for each, why in reasons.items() if not why]
        if not allowed:
            raise Refused(403, *list(reasons.values())[:1] or [_NO_ADDRESS])
        for address in allowed[:_ATTEMPTS]:
            sock = await self._connect(address, port)
            if sock is None:
                continue
            if why := self._forbids(host, port, address):
                sock.close()
                raise Refused(403, why)
            return sock, address, match
        raise Refused(502, "not_reachable")

    def _forbids(self, host: Host, port: int, address: Address) -> str:
        match = self.policy.match(host, port)
        if match in (Match.NO, Match.OTHER_PORT):
            return str(match.value)
        return self.policy.forbids(address, match)

    async def _look_up(self, name: str, port: int) -> list[Address]:
        """At most so many at once for a sandbox: a slow name server holds up its own lookups."""
        try:
            async with asyncio.timeout(_LOOKUP):
                await self._lookups.acquire()
                task = asyncio.ensure_future(self._shared.resolve(name, port))
                task.add_done_callback(self._looked_up)
                return await asyncio.shield(task)
        except TimeoutError:
            raise Refused(504, "lookup_timeout") from None
        except OSError:
            raise Refused(502, "lookup_failed") from None

    def _looked_up(self, task: "asyncio.Task[list[Address]]") -> None:
        self._lookups.release()
        if not task.cancelled():
            task.exception()

    async def _connect(self, address: Address, port: int) -> socket.socket | None:
        """To this address and no other."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(_CONNECT):
                await self._loop.sock_connect(sock, (str(address), port))
        except OSError:  # Among them is a timeout.
            sock.close()
            return None
        except BaseException:
            sock.close()
            raise
        return sock

    def _come(self, accepting: Accepting, sock: socket.socket) -> None:
        """In the thread of the listener."""
        try:
            self._loop.call_soon_threadsafe(self._begin, sock, accepting)
        except RuntimeError:  # The loop has ended.
            sock.close()

    def _begin(self, sock: socket.socket, accepting: Accepting) -> None:
        if self._shared.open >= _MOST_OF_ALL or accepting is not self._accepting:
            sock.close()
            accepting.give_back()
            return
        self._shared.open += 1
        connection = Connection(sock, self)
        task = asyncio.create_task(connection.run())
        self._tasks[task] = connection
        task.add_done_callback(lambda done: self._end(done, accepting))

    def _end(self, task: "asyncio.Task[None]", accepting: Accepting) -> None:
        del self._tasks[task]
        self._shared.open -= 1
        accepting.give_back()
        if not task.cancelled() and (error := task.exception()):
            log.say("failed", uid=self.uid, error=f"{type(error).__name__}: {error}"[:300])

    def _stop_accepting(self) -> None:
        if self._accepting:
            task = asyncio.create_task(_closed(self._accepting))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._accepting = None


async def _closed(accepting: Accepting) -> None:
    while not accepting.close():  # noqa: ASYNC110 # Its thread tells nobody.
        await asyncio.sleep(_CLOSE_LOOK)
