"""Reads a log of which a part may be kept no longer, and may go while it is read."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.record import Damage, LogReader, Record
from services.executor import hole
from services.executor.hole import Hole

_BATCH: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Left:
    """Output that is kept no longer: `size` bytes from `offset` on."""

    offset: int
    size: int


class OpenLog:
    """As LogReader, of the execution in `folder`; what comes from a hole is never taken."""

    def __init__(self, folder: Path) -> None:
        """Raises FileNotFoundError when the execution is removed."""
        self._folder = folder
        self.descriptor = os.open(folder / "log", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._note = hole.opened(folder)
        except OSError:
            os.close(self.descriptor)
            raise
        self.reader = LogReader(self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)
        if self._note >= 0:
            os.close(self._note)

    @property
    def position(self) -> int:
        return self.reader.position

    @property
    def offset(self) -> int:
        return self.reader.offset

    @property
    def damage(self) -> Damage:
        return self.reader.damage

    def go(self, position: int, offset: int) -> None:
        """To where a record begins, or began."""
        self.reader.position, self.reader.offset = position, offset

    def hole(self) -> Hole:
        """As it is now. Ask after reading: what was read before may be zeros in it."""
        if self._note < 0:
            self._note = hole.opened(self._folder)
        return hole.read(self._note)

    def seek(self, offset: int) -> None:
        """Go forward to what holds the byte at `offset`: a record, or the hole; or to the end."""
        while True:
            self.reader.seek(offset)
            gone = self.hole()
            if self.position not in gone or offset < gone.last:
                return
            self.go(gone.end, gone.last)

    def read(self, most: int = _BATCH) -> list[Record | Left]:
        """What follows, about `most` bytes; nothing when there is no more yet."""
        return self._kept(self.reader.read(most))

    def at_hand(self, most: int) -> list[Record | Left]:
        """As `read`, without waiting for a disk; nothing, too, where it would have to."""
        found = self.reader.at_hand(most)
        return self._kept(found) if found else []

    def _kept(self, found: list[Record]) -> list[Record | Left]:
        """What was just read, less what is in the hole."""
        gone = self.hole()
        kept: list[Record | Left] = [each for each in found if each.position not in gone]
        inside = [each for each in found if each.position in gone]
        begin = inside[0].offset if inside else self.offset
        if self.position in gone:
            self.go(gone.end, gone.last)
        elif not inside:
            return kept
        before = sum(each.position < gone.begin for each in found)
        kept.insert(before, Left(begin, max(0, gone.last - begin)))
        return kept
