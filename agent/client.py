"""Talks to the agent of one sandbox. What it answers is untrusted; who answers is not."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

from agent import encoding, frames
from agent.channel import Channel, PeerGone, PeerTooOld
from agent.file_requests import FileRequests
from agent.input_requests import InputRequests
from agent.messages import (
    AgentError,
    Command,
    CommandLimits,
    Entry,
    ErrorCode,
    InputState,
    Listing,
    Processes,
    Running,
    Scope,
    Sinks,
    Started,
    Terminal,
)
from agent.replies import TIMEOUT, numbers

__all__ = [
    "AgentClient",
    "AgentError",
    "Command",
    "CommandLimits",
    "Entry",
    "ErrorCode",
    "InputState",
    "Listing",
    "PeerGone",
    "PeerTooOld",
    "Processes",
    "Running",
    "Scope",
    "Sinks",
    "Started",
    "Terminal",
]

_STARTS: Final = {
    (False, False): frames.START,
    (False, True): frames.START_SECRETLY,
    (True, False): frames.START_OPEN,
    (True, True): frames.START_OPEN_SECRETLY,
}
"""By whether there is an input, and whether there are secrets."""


class AgentClient(FileRequests, InputRequests):
    """A connection to an agent. While one is open, the agent does not go idle: keep it short."""

    def __init__(self, channel: Channel, pidfd: int) -> None:
        super().__init__(channel)
        self.pidfd = pidfd
        """Of the agent, pid 1 of the sandbox. Readable when the sandbox is gone."""

    @classmethod
    @asynccontextmanager
    async def connect(cls, path: Path, *uids: int, timeout: float = TIMEOUT) -> AsyncIterator[Self]:
        """Connect to the agent that listens at `path` and must run as one of `uids`; or, where
        the launcher gave the socket to another user, as that one.

        Raises PeerGone when there is none (dormant, or just gone), PeerTooOld.
        """
        async with Channel.open(path, timeout) as channel:
            await channel.request(frames.HELLO, b"", timeout)
            pid = channel.pid
            try:
                pidfd = os.pidfd_open(pid)
            except OSError as error:
                raise PeerGone("the agent went away") from error
            try:
                # Answering once more proves that the pid was not reused before pidfd_open.
                await channel.request(frames.HELLO, b"", timeout)
                if channel.pid != pid or channel.uid not in _allowed(path, uids):
                    raise PeerGone("somebody else answered")
                yield cls(channel, pidfd)
            finally:
                os.close(pidfd)

    @property
    def pid(self) -> int:
        """Of the agent, in our pid namespace."""
        return self._channel.pid

    @property
    def uid(self) -> int:
        """Of the agent, in our user namespace."""
        return self._channel.uid

    @property
    def gone(self) -> asyncio.Event:
        """Set when the connection has ended."""
        return self._channel.gone

    @contextmanager
    def when_gone(self, call: Callable[[], object]) -> Iterator[None]:
        """Have `call` called if the connection ends within the block, or ended before it."""
        self._channel.then.add(call)
        if self.gone.is_set():
            call()
        try:
            yield
        finally:
            self._channel.then.discard(call)

    async def start(
        self, execution_id: str, command: Command, sinks: Sinks, timeout: float = TIMEOUT
    ) -> Started:
        """Start a command, or find the one of that id. Returns when it runs.

        After PeerGone ask again, or look into the log: an empty one means it never ran.
        """
        unified = int(sinks.unified is not None)
        secrets, wanted = encoding.secrets(command), encoding.input_of(command)
        first = execution_id.encode(), *secrets, *encoding.limits(command), unified
        payload = frames.pack(*first, *wanted, *encoding.program(command))
        kind = _STARTS[bool(wanted), bool(secrets)]
        reply = await self._ask(kind, payload, timeout, encoding.descriptors(sinks))
        pid, existing = numbers(reply, 2)
        return Started(pid, bool(existing))

    async def limit(self, execution_id: str, limits: CommandLimits) -> None:
        """What the next start of this id over this connection may use.

        An agent of an earlier version refuses that: AgentError, BAD_REQUEST.
        """
        pairs = [each for pair in limits.resources.items() for each in pair]
        payload = frames.pack(execution_id.encode(), limits.output_bytes, *pairs)
        await self._ask(frames.LIMITS, payload)

    async def exceeded(
        self, execution_id: str, limit: bytes, grace: timedelta = timedelta(seconds=5)
    ) -> None:
        """As `cancel`, as it has met `limit`: frames.DISK, PIDS, CPU. Its exit says so."""
        payload = frames.pack(execution_id.encode(), limit, encoding.milliseconds(grace))
        await self._ask(frames.EXCEEDED, payload, grace.total_seconds() + 15.0)

    async def prepare(self, token: str, sinks: Sinks, timeout: float = TIMEOUT) -> None:
        """Do ahead what a start needs before its command is known. Returns when `run` may come.

        What was prepared lasts as long as this connection, and serves one command.
        """
        payload = frames.pack(token.encode(), int(sinks.unified is not None))
        await self._ask(frames.PREPARE, payload, timeout, encoding.descriptors(sinks))

    async def run(
        self, token: str, execution_id: str, command: Command, timeout: float = TIMEOUT
    ) -> Started:
        """As `start`, with what was prepared as `token`. NOT_PREPARED when that is gone."""
        names = token.encode(), execution_id.encode()
        secrets = encoding.secrets(command)
        said = *names, *secrets, *encoding.limits(command), *encoding.program(command)
        kind = frames.RUN_SECRETLY if secrets else frames.RUN
        pid, existing = numbers(await self._ask(kind, frames.pack(*said), timeout), 2)
        return Started(pid, bool(existing))

    async def forget(self, token: str) -> None:
        """End what was prepared and is not used after all, if it is there.

        An agent of an earlier version refuses that: AgentError.
        """
        await self._ask(frames.FORGET, frames.pack(token.encode()))

    async def signal(
        self, execution_id: str, number: int, scope: Scope = Scope.PROCESS, timeout: float = 15.0
    ) -> None:
        """Send a signal. SIGKILL to a TREE returns when nothing of it is left."""
        payload = frames.pack(execution_id.encode(), number, int(scope))
        await self._ask(frames.SIGNAL, payload, timeout)

    async def cancel(
        self, execution_id: str, by: str, grace: timedelta = timedelta(seconds=5)
    ) -> None:
        """End it for somebody: SIGTERM to the tree, after `grace` SIGKILL; its exit says so.

        Returns when nothing of it is left and the result is written.
        """
        payload = frames.pack(execution_id.encode(), by.encode(), encoding.milliseconds(grace))
        await self._ask(frames.CANCEL, payload, grace.total_seconds() + 15.0)

    async def leave(self, timeout: float = TIMEOUT) -> bool:
        """End the sandbox, if nothing runs in it; whether it ends. No start is lost by it.

        An agent of an earlier version refuses that: AgentError.
        """
        (idle,) = numbers(await self._ask(frames.LEAVE, b"", timeout), 1)
        return bool(idle)

    async def leave_if_quiet(
        self, quiet: timedelta, timeout: float = TIMEOUT
    ) -> tuple[bool, timedelta]:
        """As `leave`, if nothing has run for so long; and for how long that is so.

        An agent of an earlier version ends if nothing runs now.
        """
        payload = frames.pack(quiet // timedelta(milliseconds=1))
        reply = await self._ask(frames.LEAVE, payload, timeout)
        idle, *told = numbers(reply, 1, 2)
        return bool(idle), timedelta(milliseconds=told[0] if told else 0)

    async def listing(self, timeout: float = TIMEOUT) -> Listing:
        """What runs here. Ended executions are listed while the agent remembers them."""
        reply = await self._ask(frames.LIST, b"", timeout)
        try:
            return encoding.listing(frames.unpack(reply.payload))
        except (ValueError, IndexError) as error:
            raise PeerGone("the agent answers nonsense") from error

    async def processes(self, *keys: str, timeout: float = TIMEOUT) -> dict[str, Processes]:
        """What is alive of these executions, or of all; those without a process are left out.

        An agent of an earlier version refuses that: AgentError.
        """
        payload = frames.pack(*(each.encode() for each in keys))
        reply = await self._ask(frames.PROCESSES, payload, timeout)
        try:
            return encoding.processes(frames.unpack(reply.payload))
        except (ValueError, IndexError) as error:
            raise PeerGone("the agent answers nonsense") from error

    async def connect_port(self, port: int, *, six: bool, timeout: float = TIMEOUT) -> int:
        """A connection to a port of the sandbox's localhost that is on its way, as a descriptor.

        The caller closes it, waits for it, and checks what it is: the agent is not believed. An
        agent of an earlier version refuses that: AgentError.
        """
        reply = await self._ask(frames.CONNECT, frames.pack(port, int(six)), timeout, wanted=1)
        return reply.descriptors[0]

    async def listen(self, port: int, timeout: float = TIMEOUT) -> int:
        """A listener on the loopback inside; what connects to it waits until it is accepted.

        The agent keeps a copy, and gives the same one again. The caller closes the descriptor,
        and checks what it is: the agent is not believed. AgentError with BAD_REQUEST: the agent
        is of an earlier version; with EADDRINUSE: a program inside has the port.
        """
        reply = await self._ask(frames.LISTEN, frames.pack(port), timeout, wanted=1)
        return reply.descriptors[0]

    async def close_listener(self, timeout: float = TIMEOUT) -> None:
        """Have the agent give up its copy of what `listen` gave."""
        await self._ask(frames.CLOSE_LISTENER, b"", timeout)

    async def handle(self, handle: bytes, timeout: float = TIMEOUT) -> bytes:
        """The handle in force, which is the given one, where handles move.

        AgentError with HANDLE_STALE or HANDLE_INVALID when it is another.
        """
        reply = await self._ask(frames.HANDLE, frames.pack(handle), timeout)
        return reply.payload


def _allowed(path: Path, uids: tuple[int, ...]) -> tuple[int, ...]:
    """Sockets are in folders that only root can change, where anybody but root owns one."""
    try:
        owner = path.stat().st_uid
    except OSError as error:
        raise PeerGone("the agent went away") from error
    return uids if os.geteuid() != 0 or owner == 0 else (owner,)
