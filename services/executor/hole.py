"""What of a log is kept no longer: one hole, noted in a file of the executor's own.

The note is on disk before the hole is made, and only ever grows. So whoever has read from a log,
and looks at the note after that, knows which of it may have been zeros.
"""

import os
import struct
from binascii import crc32
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from services.executor.entries import locked

_NOTE: Final = struct.Struct("<4QI")
_SLOT: Final = 512
SIZE: Final = 2 * _SLOT
"""Bytes of the file: two places for a note, which are written in turn, so that one is whole."""
_BLANK: Final = bytes(_NOTE.size)


@dataclass(frozen=True, slots=True)
class Hole:
    """From the record at `begin` up to the one at `end`, positions in the file, nothing is kept.

    `first` and `last` are the offsets of the output there.
    """

    begin: int = 0
    end: int = 0
    first: int = 0
    last: int = 0

    def __contains__(self, position: int) -> bool:
        return self.begin <= position < self.end

    def encode(self) -> bytes:
        body = _NOTE.pack(self.begin, self.end, self.first, self.last, 0)
        return _NOTE.pack(self.begin, self.end, self.first, self.last, crc32(body))

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """None when it is no whole note."""
        if len(data) < _NOTE.size or data[: _NOTE.size] == _BLANK:
            return None
        *numbers, checksum = _NOTE.unpack_from(data)
        found = cls(*numbers)
        return found if _NOTE.unpack(found.encode())[4] == checksum else None


NONE: Final = Hole()


def read(descriptor: int) -> Hole:
    """The hole as it is now; NONE where there is none. `descriptor`: of the file `hole`, or -1."""
    if descriptor < 0:
        return NONE
    data = os.pread(descriptor, SIZE, 0)
    found = [Hole.decode(data[at : at + _NOTE.size]) for at in (0, _SLOT)]
    return max((each for each in found if each), key=_order, default=NONE)


def opened(folder: Path) -> int:
    """To read the note of an execution with; -1 where it has no file for one."""
    try:
        return os.open(f"{folder}/hole", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1


@contextmanager
def noting(folder: Path) -> Iterator[int | None]:
    """Hold the note of an execution, so that only one makes holes; None: somebody else does."""
    descriptor = os.open(f"{folder}/hole", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor if locked(descriptor) else None
    finally:
        os.close(descriptor)


def note(descriptor: int, hole: Hole) -> None:
    """Say that there will be this hole; it contains the one before. Durable. Raises OSError."""
    data = os.pread(descriptor, SIZE, 0)
    before = [Hole.decode(data[at : at + _NOTE.size]) or NONE for at in (0, _SLOT)]
    at = _SLOT if _order(before[0]) > _order(before[1]) else 0
    os.pwrite(descriptor, hole.encode(), at)
    os.fdatasync(descriptor)


def _order(hole: Hole) -> tuple[int, int]:
    return hole.end, -hole.begin
