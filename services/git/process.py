"""Runs one program with bounds on time and on output."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from services.git.channel import Ready

_CHUNK: Final = 64 * 1024
_ERROR_TAIL: Final = 16 * 1024
_UMASK: Final = 0o022
_AWAITED: Final = 4
"""Children of a process that are waited for when they are killed."""
_PATIENCE: Final = 10.0
"""Seconds that what was killed may take to be gone, until nobody waits for it."""


class TooMuchOutput(Exception):
    """The program wrote more than was allowed and was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to start. `descriptors` are inherited under their own numbers."""

    argv: Sequence[str]
    env: Mapping[str, str]
    descriptors: Sequence[int] = ()
    stdin: int | None = None
    stdout: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a program ended: negative codes are signals, `errors` is the tail of stderr."""

    code: int
    output: bytes
    errors: str


def close_all(descriptors: list[int]) -> None:
    """Close and forget them; call it again when not sure that it came to this."""
    while descriptors:
        os.close(descriptors.pop())


def memory_file(data: bytes) -> int:
    """A descriptor of a file that is in memory alone, at its beginning."""
    descriptor = os.memfd_create("cove")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


class Started(Protocol):
    """A program that was started, here or in a warm cell."""

    @property
    def pid(self) -> int: ...
    async def read(self, size: int) -> bytes:
        """Of its stdout; nothing at its end, or where that goes elsewhere."""
        ...

    async def read_errors(self, size: int) -> bytes:
        """Of its stderr."""
        ...

    async def feed(self, data: bytes) -> None:
        """Write its stdin and close that; it need not read it."""
        ...

    async def wait(self) -> int:
        """Wait for its end; the exit code."""
        ...

    def kill(self) -> None:
        """End it with all that it started."""
        ...

    async def release(self) -> None:
        """Wait until it is gone, after `kill`, and let go of everything."""
        ...


class Running:
    """A started program. `close()` kills it and waits until it is gone."""

    def __init__(self, started: Started) -> None:
        self._started = started
        self._errors = bytearray()
        self._listeners: list[Callable[[str], None]] = []
        self._reader = asyncio.create_task(self._read_errors())

    @classmethod
    async def start(cls, program: Program) -> "Running":
        """Start it in a session of its own, with nothing of ours but `descriptors`."""
        pipe = asyncio.subprocess.PIPE
        return cls(
            _Child(
                await asyncio.create_subprocess_exec(
                    *program.argv,
                    env=program.env,
                    stdin=pipe if program.stdin is None else program.stdin,
                    stdout=pipe if program.stdout is None else program.stdout,
                    stderr=pipe,
                    cwd="/",
                    pass_fds=program.descriptors,
                    start_new_session=True,
                    umask=_UMASK,
                )
            )
        )

    def on_error_line(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with each line of stderr, also with those ended by a return."""
        self._listeners.append(listener)

    async def output(self) -> AsyncGenerator[bytes, None]:
        """Yield stdout as it comes; a slow reader slows the program down."""
        while data := await self._started.read(_CHUNK):
            yield data

    async def feed(self, data: bytes) -> None:
        """Write `data` to stdin and close it; a program that stops reading is no error."""
        with suppress(BrokenPipeError, ConnectionResetError):
            await self._started.feed(data)

    async def finish(self, stdin: bytes = b"", *, limit: int) -> Result:
        """Read everything and wait for the end. Raises `TooMuchOutput`."""
        feeding = asyncio.create_task(self.feed(stdin))
        output = bytearray()
        try:
            async for data in self.output():
                output += data
                if len(output) > limit:
                    raise TooMuchOutput
            code = await self._started.wait()
            await self._reader
        finally:
            feeding.cancel()
            with suppress(asyncio.CancelledError):
                await feeding
        return Result(code=code, output=bytes(output), errors=self.errors)

    @property
    def pid(self) -> int:
        """Of the program itself, or of the warm cell in which it runs."""
        return self._started.pid

    @property
    def errors(self) -> str:
        """The tail of stderr so far."""
        return self._errors.decode("utf-8", "replace")

    async def wait(self) -> int:
        """Wait for the end; stdout must be read by someone else."""
        code = await self._started.wait()
        await self._reader
        return code

    def kill(self) -> None:
        """End it at once, with all that it started; `finish` and `wait` then return."""
        self._started.kill()

    async def close(self) -> None:
        """Kill what still runs, and release everything."""
        self._started.kill()
        await self._started.release()
        self._reader.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader

    async def _read_errors(self) -> None:
        line = bytearray()
        while data := await self._started.read_errors(_CHUNK):
            self._errors += data
            del self._errors[:-_ERROR_TAIL]
            if not self._listeners:
                continue
            line += data
            *whole, rest = line.replace(b"\r", b"\n").split(b"\n")
            line = bytearray(rest[-_ERROR_TAIL:])
            for one in whole:
                for listener in self._listeners:
                    listener(one.decode("utf-8", "replace"))


class _Child:
    """A process of ours."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._killed: list[int] = []
        """Descriptors of its descendants that were killed, which need not be gone before it."""

    @property
    def pid(self) -> int:
        return self._process.pid

    async def read(self, size: int) -> bytes:
        stdout = self._process.stdout
        return await stdout.read(size) if stdout is not None else b""

    async def read_errors(self, size: int) -> bytes:
        assert self._process.stderr
        return await self._process.stderr.read(size)

    async def feed(self, data: bytes) -> None:
        stdin = self._process.stdin
        if stdin is None:
            return
        with suppress(BrokenPipeError, ConnectionResetError):
            stdin.write(data)
            await stdin.drain()
        stdin.close()
        await stdin.wait_closed()

    async def wait(self) -> int:
        return await self._process.wait()

    def kill(self) -> None:
        if self._process.returncode is None:
            self._killed += _kill_tree(self._process.pid)
            with suppress(ProcessLookupError):  # What has lost its parent.
                os.killpg(self._process.pid, signal.SIGKILL)

    async def release(self) -> None:
        self._process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001
        try:
            await self._process.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    for descriptor in self._killed:
                        await Ready(descriptor).to_read()
        finally:
            close_all(self._killed)


def _kill_tree(pid: int) -> list[int]:
    """Kill a child of ours and its descendants, which may be in other sessions and namespaces.

    Returns descriptors of some descendants, among them of process 1 of a namespace, which can be
    read when they are gone: then so is all of that namespace.

    bubblewrap's own --die-with-parent is no help while it is at its set-up: its inner process is
    in a session of its own before it asks to die with the outer one. What is stopped starts
    nothing more, and reaps nothing, so that the pids of its children stay theirs.
    """
    descendants = list[int]()
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        for child in _children(pid):
            if len(descendants) < _AWAITED:
                with suppress(OSError):
                    descendants.append(os.pidfd_open(child))
            descendants += _kill_tree(child)
        os.kill(pid, signal.SIGKILL)
    return descendants


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except FileNotFoundError:
        return []
