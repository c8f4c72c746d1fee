"""Talks to the agent of one sandbox. What it answers is untrusted; who answers is not."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

from agent import encoding, frames
from agent.channel import Channel, PeerGone, PeerTooOld, Reply
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
from agent.replies import failure, numbers

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

_TIMEOUT: Final = 10.0
"""Seconds the agent has for what it does at once."""


_STARTS: Final = {
    (False, False): frames.START,
    (False, True): frames.START_SECRETLY,
    (True, False): frames.START_OPEN,
    (True, True): frames.START_OPEN_SECRETLY,
}
"""By whether there is an input, and whether there are secrets."""


class AgentClient(InputRequests):
    """A connection to an agent. While one is open, the agent does not go idle: keep it short."""

    def __init__(self, channel: Channel, pidfd: int) -> None:
        self._channel = channel
        self.pidfd = pidfd
        """Of the agent, pid 1 of the sandbox. Readable when the sandbox is gone."""

    @classmethod
    @asynccontextmanager
    async def connect(cls, path: Path, uid: int, timeout: float = _TIMEOUT) -> AsyncIterator[Self]:
        """Connect to the agent that listens at `path` and must run as `uid` (seen from here).

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
                if channel.pid != pid or channel.uid != uid:
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
        self, execution_id: str, command: Command, sinks: Sinks, timeout: float = _TIMEOUT
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

    async def prepare(self, token: str, sinks: Sinks, timeout: float = _TIMEOUT) -> None:
        """Do ahead what a start needs before its command is known. Returns when `run` may come.

        What was prepared lasts as long as this connection, and serves one command.
        """
        payload = frames.pack(token.encode(), int(sinks.unified is not None))
        await self._ask(frames.PREPARE, payload, timeout, encoding.descriptors(sinks))

    async def run(
        self, token: str, execution_id: str, command: Command, timeout: float = _TIMEOUT
    ) -> Started:
        """As `start`, with what was prepared as `token`. NOT_PREPARED when that is gone."""
        names = token.encode(), execution_id.encode()
        secrets = encoding.secrets(command)
        said = *names, *secrets, *encoding.limits(command), *encoding.program(command)
        kind = frames.RUN_SECRETLY if secrets else frames.RUN
        pid, existing = numbers(await self._ask(kind, frames.pack(*said), timeout), 2)
        return Started(pid, bool(existing))

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

    async def leave(self, timeout: float = _TIMEOUT) -> bool:
        """End the sandbox, if nothing runs in it; whether it ends. No start is lost by it.

        An agent of an earlier version refuses that: AgentError.
        """
        (idle,) = numbers(await self._ask(frames.LEAVE, b"", timeout), 1)
        return bool(idle)

    async def listing(self, timeout: float = _TIMEOUT) -> Listing:
        """What runs here. Ended executions are listed while the agent remembers them."""
        reply = await self._ask(frames.LIST, b"", timeout)
        try:
            return encoding.listing(frames.unpack(reply.payload))
        except (ValueError, IndexError) as error:
            raise PeerGone("the agent answers nonsense") from error

    async def processes(self, *keys: str, timeout: float = _TIMEOUT) -> dict[str, Processes]:
        """What is alive of these executions, or of all; those without a process are left out.

        An agent of an earlier version refuses that: AgentError.
        """
        payload = frames.pack(*(each.encode() for each in keys))
        reply = await self._ask(frames.PROCESSES, payload, timeout)
        try:
            return encoding.processes(frames.unpack(reply.payload))
        except (ValueError, IndexError) as error:
            raise PeerGone("the agent answers nonsense") from error

    async def connect_port(self, port: int, *, six: bool, timeout: float = _TIMEOUT) -> int:
        """A connection to a port of the sandbox's localhost that is on its way, as a descriptor.

        The caller closes it, waits for it, and checks what it is: the agent is not believed. An
        agent of an earlier version refuses that: AgentError.
        """
        reply = await self._ask(frames.CONNECT, frames.pack(port, int(six)), timeout, wanted=1)
        return reply.descriptors[0]

    async def open(
        self,
        path: str | bytes,
        flags: int = os.O_RDONLY,
        mode: int = 0o644,
        *,
        follow: bool = True,
        timeout: float = _TIMEOUT,
    ) -> int:
        """Open a regular file or a directory inside; `path` is relative to /workspace or absolute.

        No `..` and no symlink leads out of /workspace, /home/cove, /tmp (PATH_OUTSIDE). The
        caller closes the descriptor, and checks what it is: the agent is not believed. With
        O_PATH anything is opened; without `follow` also a symlink itself.
        """
        payload = frames.pack(encoding.to_bytes(path), flags, mode, int(follow))
        reply = await self._ask(frames.OPEN, payload, timeout, descriptors=(), wanted=1)
        return reply.descriptors[0]

    async def stat(self, path: str | bytes, *, follow: bool = False) -> os.stat_result:
        """What is at `path`."""
        descriptor = await self.open(path, os.O_PATH, follow=follow)
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    async def list_directory(self, path: str | bytes) -> list[Entry]:
        """Everything in a directory, by name. Costs the agent no more than an open."""
        descriptor = await self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        return await asyncio.to_thread(_entries, descriptor)

    async def make_directory(
        self, path: str | bytes, mode: int = 0o755, *, parents: bool = False
    ) -> None:
        """With `parents`, missing ones are made and an existing directory is no error."""
        await self._ask(
            frames.MAKE_DIRECTORY, frames.pack(encoding.to_bytes(path), mode, int(parents))
        )

    async def remove(
        self, path: str | bytes, *, recursive: bool = False, timeout: float = 300.0
    ) -> None:
        """Remove a file, a symlink (never its target), or a directory: an empty one, or whole."""
        payload = frames.pack(encoding.to_bytes(path), int(recursive))
        await self._ask(frames.REMOVE, payload, timeout)

    async def rename(
        self, source: str | bytes, target: str | bytes, *, replace: bool = True
    ) -> None:
        """Rename within one file system. Without `replace` an existing target is EEXIST."""
        payload = frames.pack(encoding.to_bytes(source), encoding.to_bytes(target), int(replace))
        await self._ask(frames.RENAME, payload)

    async def read_archive(self, path: str | bytes, out: int, control: int) -> int:
        """Have a helper write an archive of `path` to the stream socket `out`.

        Gives its number, for `end_helper`. The descriptors stay the caller's.
        """
        return await self._help(
            frames.READ_ARCHIVE, frames.pack(encoding.to_bytes(path)), out, control
        )

    async def write_archive(
        self, path: str | bytes, stage: str | bytes, source: int, control: int
    ) -> int:
        """Have a helper unpack an archive from the stream socket `source` into the new directory
        `stage`; when it is told to on `control`, it moves that into the place of `path`."""
        payload = frames.pack(encoding.to_bytes(path), encoding.to_bytes(stage))
        return await self._help(frames.WRITE_ARCHIVE, payload, source, control)

    async def watch(self, path: str | bytes, control: int) -> int:
        """Have a helper tell on `control` what changes below the directory `path`."""
        return await self._help(frames.WATCH, frames.pack(encoding.to_bytes(path)), control)

    async def _help(self, kind: int, payload: bytes, *descriptors: int) -> int:
        reply = await self._ask(kind, payload, descriptors=descriptors)
        return numbers(reply, 1)[0]

    async def end_helper(self, number: int) -> None:
        """Kill a helper, if it is still there. What it began is left as it is."""
        await self._ask(frames.END_HELPER, frames.pack(number))

    async def listen(self, port: int, timeout: float = _TIMEOUT) -> int:
        """A listener on the loopback inside; what connects to it waits until it is accepted.

        The agent keeps a copy, and gives the same one again. The caller closes the descriptor,
        and checks what it is: the agent is not believed. AgentError with BAD_REQUEST: the agent
        is of an earlier version; with EADDRINUSE: a program inside has the port.
        """
        reply = await self._ask(frames.LISTEN, frames.pack(port), timeout, wanted=1)
        return reply.descriptors[0]

    async def close_listener(self, timeout: float = _TIMEOUT) -> None:
        """Have the agent give up its copy of what `listen` gave."""
        await self._ask(frames.CLOSE_LISTENER, b"", timeout)

    async def _ask(
        self,
        kind: int,
        payload: bytes,
        timeout: float = _TIMEOUT,
        descriptors: Sequence[int] = (),
        wanted: int = 0,
    ) -> Reply:
        reply = await self._channel.request(kind, payload, timeout, descriptors)
        if not reply.ok or len(reply.descriptors) != wanted:
            for descriptor in reply.descriptors:
                os.close(descriptor)
            raise failure(reply)
        return reply


def _entries(directory: int) -> list[Entry]:
    """Reads and closes the directory. Entries that go away meanwhile are left out."""
    entries = []
    try:
        for name in sorted(os.fsencode(name) for name in os.listdir(directory)):
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                link = stat.S_ISLNK(found.st_mode)
                target = os.readlink(name, dir_fd=directory) if link else b""
            except FileNotFoundError:
                continue
            entries.append(Entry(name, found, target))
    finally:
        os.close(directory)
    return entries
