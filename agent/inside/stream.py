"""Reads one pipe, or the terminal, of a command into its log."""

import errno
import os

from agent import formats
from agent.inside.log import Log
from agent.inside.redaction import Redactor

_HOLD = 0.001
"""Seconds that a pipe is left alone after a short read, so that many small writes become one."""
_SHORT = 4096
_FULL = 32768
_PAGES = 16


class Stream:
    """The reading end of a pipe, or the master of a terminal.

    The first bytes after silence are recorded at once. What follows within _HOLD waits in the
    pipe, which is large enough that a fast writer is not held up: no memory of ours is used.
    """

    def __init__(
        self, descriptor: int, number: int, log: Log, hidden: tuple[bytes, ...] = ()
    ) -> None:
        self.descriptor = descriptor
        self.held_until = 0.0
        """Not to be read before this; 0 is now."""
        self.open = True
        self._number = number
        self._log: Log | None = log
        self._redactor = Redactor(hidden) if hidden else None

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
        burst = self.held_until == 0.0 or len(data) < _FULL
        self.held_until = now + _HOLD if len(data) < _SHORT and burst else 0.0
        return True

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
