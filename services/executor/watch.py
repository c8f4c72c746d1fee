"""Tells when files in a directory change: one inotify for the whole process, else polling."""

import asyncio
import ctypes
import os
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, Self

_EVENT: Final = struct.Struct("iIII")
_MODIFY, _MOVED_TO, _DELETE_SELF, _MOVE_SELF = 0x2, 0x80, 0x400, 0x800
_IGNORED: Final = 0x8000
_ONLYDIR: Final = 0x01000000
_MASK: Final = _MODIFY | _MOVED_TO | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
_POLL: Final = 0.05
"""Seconds between two looks where the kernel does not tell."""


class Changes:
    """What one reader waits for."""

    def __init__(self, names: frozenset[str], *, told: bool) -> None:
        self.names = names
        self.happened = asyncio.Event()
        """Set at every change; clear it before looking. Never set where nothing is told."""
        self._told = told

    async def wait(self, timeout: float) -> None:
        """Return after a change, or after `timeout` seconds, or at times for no reason."""
        try:
            async with asyncio.timeout(timeout if self._told else min(timeout, _POLL)):
                await self.happened.wait()
        except TimeoutError:
            return


class Watcher:
    """Watches directories for any number of readers. Made in the event loop it is used in."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        """Of inotify; -1 where there is none, as a user may have only so many."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._readers: dict[int, set[Changes]] = {}
        self._loop = asyncio.get_running_loop()

    @classmethod
    @contextmanager
    def open(cls, *, inotify: bool = True) -> Iterator[Self]:
        """Without `inotify` it polls."""
        flags = os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = ctypes.CDLL(None).inotify_init1(flags) if inotify else -1
        watcher = cls(descriptor)
        if descriptor < 0:
            yield watcher
            return
        watcher._loop.add_reader(descriptor, watcher._read)
        try:
            yield watcher
        finally:
            watcher._loop.remove_reader(descriptor)
            os.close(descriptor)

    @asynccontextmanager
    async def watching(self, folder: Path, *names: str) -> AsyncIterator[Changes]:
        """Changes of the files `names` in `folder`, or of the folder itself, from now on.

        Without names nothing is told.
        """
        watch = -1
        if self._descriptor >= 0 and names:
            path = os.fsencode(folder)
            watch = self._libc.inotify_add_watch(self._descriptor, path, _MASK)
        changes = Changes(frozenset(names), told=watch >= 0)
        if watch < 0:
            yield changes
            return
        readers = self._readers.setdefault(watch, set())
        readers.add(changes)
        try:
            yield changes
        finally:
            readers.discard(changes)
            if not readers and self._readers.get(watch) is readers:
                del self._readers[watch]
                self._libc.inotify_rm_watch(self._descriptor, watch)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            watch, mask, _, size = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            name = os.fsdecode(data[at : at + size].rstrip(b"\0"))
            at += size
            self._tell(watch, mask, name)

    def _tell(self, watch: int, mask: int, name: str) -> None:
        if watch < 0:  # The kernel's queue ran over: anything may have changed.
            told = {each for readers in self._readers.values() for each in readers}
        else:
            told = self._readers.get(watch, set())
        for changes in told:
            if not name or name in changes.names:
                changes.happened.set()
        if mask & _IGNORED:  # The directory is gone, and its number may be used again.
            self._readers.pop(watch, None)
