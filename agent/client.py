"""Talks to the agent of one sandbox. What it answers is untrusted; who answers is not."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

from agent import frames
from agent.channel import Channel, PeerGone, PeerTooOld, Reply
from agent.input_requests import InputRequests
from agent.messages import (
    AgentError,
    Command,
    Entry,
    ErrorCode,
    InputState,
    Listing,
    Running,
    Scope,
    Sinks,
    Started,
    Terminal,
)
from agent.replies import as_bytes, failure, milliseconds, numbers

__all__ = [
    "AgentClient",
    "AgentError",
    "Command",
    "Entry",
    "ErrorCode",
    "InputState",
    "Listing",
    "PeerGone",
    "PeerTooOld",
    "Running",
    "Scope",
    "Sinks",
    "Started",
    "Terminal",
]

_TIMEOUT: Final = 10.0
"""Seconds the agent has for what it does at once."""


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
        first = execution_id.encode(), *_limits(command), unified
        wanted = _input(command)
        payload = frames.pack(*first, *wanted, *_program(command))
        kind = frames.START_OPEN if wanted else frames.START
        reply = await self._ask(kind, payload, timeout, _descriptors(sinks))
        pid, existing = numbers(reply, 2)
        return Started(pid, bool(existing))

    async def prepare(self, token: str, sinks: Sinks, timeout: float = _TIMEOUT) -> None:
        """Do ahead what a start needs before its command is known. Returns when `run` may come.

        What was prepared lasts as long as this connection, and serves one command.
        """
        payload = frames.pack(token.encode(), int(sinks.unified is not None))
        await self._ask(frames.PREPARE, payload, timeout, _descriptors(sinks))

    async def run(
        self, token: str, execution_id: str, command: Command, timeout: float = _TIMEOUT
    ) -> Started:
        """As `start`, with what was prepared as `token`. NOT_PREPARED when that is gone."""
        names = token.encode(), execution_id.encode()
        payload = frames.pack(*names, *_limits(command), *_program(command))
        pid, existing = numbers(await self._ask(frames.RUN, payload, timeout), 2)
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
        payload = frames.pack(execution_id.encode(), by.encode(), milliseconds(grace))
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
            fields = frames.unpack(reply.payload)
            processes = int(fields[0])
            rows = [fields[at : at + 5] for at in range(1, len(fields), 5)]
            running = tuple(
                Running(row[0].decode(), row[1] != b"0", int(row[2]), int(row[3]), int(row[4]))
                for row in rows
            )
        except (ValueError, IndexError) as error:
            raise PeerGone("the agent answers nonsense") from error
        return Listing(processes, running)

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
        payload = frames.pack(as_bytes(path), flags, mode, int(follow))
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
        await self._ask(frames.MAKE_DIRECTORY, frames.pack(as_bytes(path), mode, int(parents)))

    async def remove(
        self, path: str | bytes, *, recursive: bool = False, timeout: float = 300.0
    ) -> None:
        """Remove a file, a symlink (never its target), or a directory: an empty one, or whole."""
        payload = frames.pack(as_bytes(path), int(recursive))
        await self._ask(frames.REMOVE, payload, timeout)

    async def rename(
        self, source: str | bytes, target: str | bytes, *, replace: bool = True
    ) -> None:
        """Rename within one file system. Without `replace` an existing target is EEXIST."""
        payload = frames.pack(as_bytes(source), as_bytes(target), int(replace))
        await self._ask(frames.RENAME, payload)

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


def _descriptors(sinks: Sinks) -> list[int]:
    return [sinks.log, sinks.result, *(sinks.unified or ()), *sinks.cgroup_procs]


def _limits(command: Command) -> tuple[bytes | int, ...]:
    return (
        as_bytes(command.cwd),
        int(command.merge_stderr),
        milliseconds(command.timeout),
        milliseconds(command.idle_output_timeout),
        milliseconds(command.grace),
    )


def _input(command: Command) -> tuple[int, ...]:
    """Nothing where the command has no input."""
    if command.terminal:
        return (frames.TERMINAL, command.terminal.rows, command.terminal.cols)
    return (frames.PIPE, 0, 0) if command.stdin else ()


def _program(command: Command) -> tuple[bytes | int, ...]:
    env = [key.encode() + b"=" + as_bytes(value) for key, value in command.env.items()]
    return len(command.argv), *map(as_bytes, command.argv), *env


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
