"""Where the reader of a log takes its bytes from."""

import os
from typing import Final, Protocol

_AHEAD: Final = 64 << 10
"""Bytes that are read at once, at least."""


class Source(Protocol):
    """Where a reader takes bytes of the file from."""

    def pread(self, size: int, position: int) -> bytes:
        """As `os.pread`: less than `size` where there is no more."""
        ...


class Exactly:
    """What is asked for, and nothing else."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def pread(self, size: int, position: int) -> bytes:
        return os.pread(self._descriptor, size, position)


class Ahead:
    """More than is asked for, so that many small records cost one call of the kernel."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._data = b""
        self._begin = 0

    def pread(self, size: int, position: int) -> bytes:
        at = position - self._begin
        if not 0 <= at <= len(self._data) - size:
            self._data = os.pread(self._descriptor, max(size, _AHEAD), position)
            self._begin, at = position, 0
        return self._data[at : at + size]


class InMemory:
    """A part of the file, as far as the kernel has it in memory."""

    def __init__(self, descriptor: int, begin: int, size: int) -> None:
        self._begin = begin
        room = bytearray(size)
        try:
            size = os.preadv(descriptor, [room], begin, os.RWF_NOWAIT)
        except OSError:  # Nothing of it is, or this file system cannot tell.
            size = 0
        self._data = memoryview(room)[:size]

    def pread(self, size: int, position: int) -> bytes:
        at = position - self._begin
        return bytes(self._data[at : at + size])
