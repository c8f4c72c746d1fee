"""Reads one pipe, or the terminal, of a command into its log."""

import errno
import os

from agent import formats
from agent.inside import system
from agent.inside.log import Log
from agent.inside.redaction import Redactor

_HOLD = 0.005
"""Seconds for which what comes waits at most, so that many small writes become one record."""
_LOOK = 0.001
"""Seconds between two looks at how much waits."""
_ENOUGH = 32 << 10
"""Bytes that wait for no more."""
_FAST = 128 << 10
"""Bytes of one read after which the writer must not be held up: the pipe is nearly full."""
_CREDIT = 8
"""Reads after that which are followed by another at once, however little comes."""
_PAGES = 16
_PAGE = 4096
"""Bytes: a terminal that gives so many at once is written to fast."""


class Stream:
    """The reading end of a pipe, or the master of a terminal.

    The first bytes after silence are recorded at once. What follows waits in the pipe until it is
    enough or has waited for _HOLD; the pipe is large enough that a fast writer is not held up, and
    no memory of ours is used.
    """

    def __init__(
        self, descriptor: int, number: int, log: Log, hidden: tuple[bytes, ...] = ()
    ) -> None:
        self.descriptor = descriptor
        self.held_until = 0.0
        """Not to be looked at before this; 0 is now."""
        self.open = True
        self._number = number
        self._log: Log | None = log
        self._due = 0.0
        self._credit = 0
        self._hurried = False
        self._redactor = Redactor(hidden) if hidden else None

    def look(self, now: float) -> bool:
        """What is held is recorded when it is due, or enough. True when something was."""
        waiting = system.waiting(self.descriptor)
        if not waiting and now < self._due:
            self.held_until = 0.0
            return False
        if waiting < _ENOUGH and now < self._due:
            self.held_until = min(now + _LOOK, self._due)
            return False
        return self.read(now)

    def read(self, now: float) -> bool:
        """Record what is there. True when something was."""
        data = self._take()
        if data is None:
            self.held_until = 0.0
            return False
        if not data:
            self.close()
            return False
        self._record(self._redactor.feed(data) if self._redactor else data)
        fast = _PAGE if self._number == formats.TERMINAL else _FAST
        self._credit = _CREDIT if len(data) >= fast else max(0, self._credit - 1)
        self._due = now + _HOLD
        self.held_until = 0.0 if self._credit or self._hurried else now + _LOOK
        return True

    def hurry(self) -> None:
        """From now on nothing is held: the command has ended."""
        self._hurried = True
        self.held_until = 0.0

    def _take(self) -> bytes | None:
        """What is there; nothing at the end, None when there is nothing yet."""
        if self._number != formats.TERMINAL:
            return _read(self.descriptor, formats.MAX_RECORD)
        taken: list[bytes] = []  # A terminal gives no more than a page at a time.
        while len(taken) < _PAGES and (piece := _read(self.descriptor, formats.MAX_RECORD)):
            taken.append(piece)
        return b"".join(taken) if taken else piece

    def discard(self, *, lost: bool = False) -> None:
        """From now on read only so that nobody who still writes is held up.

        What may have been the beginning of a secret was none; `lost`: it is not recorded either.
        """
        if self._redactor and not lost:
            self._record(self._redactor.rest())
        self._log = self._redactor = None

    def close(self) -> None:
        if self.open:
            self.open = False
            os.close(self.descriptor)
            self.discard()

    def _record(self, data: bytes) -> None:
        if self._log:
            for at in range(0, len(data), formats.MAX_RECORD):
                self._log.chunk(self._number, data[at : at + formats.MAX_RECORD])


def _read(descriptor: int, most: int) -> bytes | None:
    """As `_take`, once."""
    try:
        return os.read(descriptor, most)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""  # Nobody has the terminal open any more.
