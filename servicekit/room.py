"""Room on the disk that a file keeps for itself, so that it is written to when the disk is full:
what makes room, a delete, has to be recorded first.

It is in the blocks that come next, where no command that writes in the same moment can take them.
Of a SQLite database those are of the write-ahead log, and behind the end of the database. The log
goes with the last connection; until the next one is open a file beside it, `-room`, has as much.
"""

import ctypes
import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

_log = logging.getLogger(__name__)

_KEEP_SIZE: Final = 1
_INDEX: Final = 128 << 10
"""Bytes for the index of the log, which is made before all else, and what directories grow by."""
_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Room:
    """Of one database."""

    def __init__(self, path: Path, database: int, size: int) -> None:
        self._path = path
        self._database = database
        self._size = size
        self._told = False

    @classmethod
    @contextmanager
    def kept(cls, path: Path, size: int) -> Iterator[Self]:
        """For a database that is opened and closed, by this process alone, while the block runs.

        `size` bytes are kept for the log, and as many for the database to grow by. Where there
        are none the database works all the same, until the disk is full.
        """
        # Not closed before the database is: that would take SQLite's locks on it.
        database = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        spare = path.with_name(f"{path.name}-room")
        try:
            spare.unlink(missing_ok=True)
            yield cls(path, database, size)
        finally:
            os.close(database)
            if not _log_of(path).exists():
                _reserve(spare, 2 * size + _INDEX) or _reserve(spare, size)

    def keep(self) -> None:
        """Have it, as far as there is so much. Call it when the database is open, and now and
        then, as it grows."""
        problem = 0
        with suppress(FileNotFoundError):
            log = os.open(_log_of(self._path), os.O_RDWR | os.O_CLOEXEC)
            try:
                # After a restart on a full disk its index has taken some of it.
                problem = allocate(log, 0, self._size) and allocate(log, 0, self._size * 3 // 4)
            finally:
                os.close(log)
        end = os.fstat(self._database).st_size
        problem = allocate(self._database, end, self._size) or problem
        if problem and not self._told:
            fields = {"database": self._path.name, "error": errno.errorcode.get(problem, problem)}
            _log.warning("no room is kept for a full disk", extra={"fields": fields})
        self._told = bool(problem)


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _reserve(path: Path, size: int) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        if allocate(descriptor, 0, size) == 0:
            return True
        path.unlink()
        return False
    finally:
        os.close(descriptor)


def allocate(descriptor: int, offset: int, size: int) -> int:
    """Have blocks for what will be written there; an errno, or 0. The file is as long as before."""
    if _libc.fallocate(descriptor, _KEEP_SIZE, offset, size) == 0:
        return 0
    return ctypes.get_errno()
