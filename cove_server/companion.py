"""A process of this node that outlives `cove up` when that is killed, and is taken over."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import struct
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Final

from cove_server.errors import CannotStart
from cove_server.places import Places

_log = logging.getLogger(__name__)

_UCRED: Final = struct.Struct("3i")
_START: Final = 20.0
_POLL: Final = 0.02
_BACKOFF: Final = 1.0
_LOG_TAIL: Final = 2000
_ENV: Final = ("PATH", "LANG", "LC_ALL", "TMPDIR")
"""What it needs of our environment; it lives long, and holds no secret."""


class Companion(ABC):
    """Keeps one running until it is told to stop. A subclass says what it is and asks it."""

    name: str
    """Of its socket, and of its log."""
    called: str
    module: str

    def __init__(self, places: Places, env: Mapping[str, str]) -> None:
        self._places = places
        self._env = {name: env[name] for name in _ENV if name in env}
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take over the one that runs, or start one. Raises `CannotStart`."""
        if not await self._answers():
            await self._spawn()
        self._watching = asyncio.create_task(self._watch())

    async def stop(self, *, keep: bool) -> None:
        """End it and what it serves; with `keep`, leave both as they are."""
        if self._watching is None:
            return
        self._watching.cancel()
        await asyncio.wait([self._watching])
        if keep:
            return
        try:
            pid = self._pid()
            await self._tell_to_end(pid)
            await self._ended(pid)
        except OSError as error:
            _log.warning("the %s could not be stopped: %s", self.called, error)

    @abstractmethod
    def _arguments(self) -> Sequence[str]:
        """Of its command line, after the module."""

    @abstractmethod
    async def _answers(self) -> bool:
        """Whether ours runs. Raises `CannotStart` when another does."""

    @abstractmethod
    async def _tell_to_end(self, pid: int) -> None:
        """Raises OSError."""

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                await self._ended(self._pid())
            _log.warning("the %s ended, starting it again", self.called)
            try:
                if not await self._answers():
                    await self._spawn()
            except CannotStart as error:
                _log.error("the %s: %s", self.called, error)
                await asyncio.sleep(_BACKOFF)

    async def _spawn(self) -> None:
        log = self._places.logs / f"{self.name}.log"
        pid = self._process(os.fspath(log))
        try:
            async with asyncio.timeout(_START) as limit:
                with contextlib.suppress(TimeoutError):
                    while not await self._answers():
                        if _reaped(pid):
                            break
                        await asyncio.sleep(_POLL)
                    else:
                        return
        except asyncio.CancelledError:  # Nobody will have it.
            _kill(pid)
            raise
        if limit.expired():
            _kill(pid)
        said = log.read_text("utf-8", "replace")[-_LOG_TAIL:].strip()
        raise CannotStart(f"the {self.called} does not start: {said or 'it said nothing'}")

    def _process(self, log: str) -> int:
        """Start it in a session of its own. asyncio would kill it at our end."""
        argv = [sys.executable, "-P", "-m", self.module, *self._arguments()]
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        return os.posix_spawn(
            sys.executable,
            argv,
            self._env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP],
        )

    def _pid(self) -> int:
        """Of the process that listens, told by the kernel. Raises `OSError` when none does."""
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(os.fspath(self._places.socket(self.name)))
            got = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, _, _ = _UCRED.unpack(got)
        return int(pid)

    async def _ended(self, pid: int) -> None:
        """Wait for the end of a process, ours or not."""
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        _reaped(pid)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _reaped(pid: int) -> bool:
    """Whether our child has ended; leaves no zombie. False for a process that is not ours."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return False
