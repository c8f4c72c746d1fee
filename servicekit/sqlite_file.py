"""Opens the small SQLite files that servers keep beside what they are about."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple

from servicekit.config import StartError
from servicekit.room import Room

_ROOM: Final = 2 << 20
_CHECKPOINT: Final = 256
"""Pages of the log after which it begins anew: half of its room."""


class Opened(NamedTuple):
    """A file that is open."""

    db: sqlite3.Connection
    room: Room


@contextmanager
def opened(
    path: Path,
    *,
    schema: str,
    version: int,
    synchronous: Literal["FULL", "NORMAL"],
    too_new: type[Exception],
) -> Iterator[Opened]:
    """Made if absent, 0600. With FULL what is committed survives a loss of power, too.

    Raises `too_new` for one of a later version, and `StartError` for what is no database; leaves
    both as they are.
    """
    with Room.kept(path, _ROOM) as room, closing(_connect(path)) as db:
        try:
            (found,) = db.execute("PRAGMA user_version").fetchone()
            if found > version:
                raise too_new(f"{path}: version {found}; this program knows {version}")
            ways = f"PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}"
            db.executescript(f"{ways}; {schema}")
            db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
            if found < version:  # Else a file that is as it should be would be written to.
                db.execute(f"PRAGMA user_version = {version}")
        except sqlite3.DatabaseError as error:
            raise StartError(
                f"{path}: cannot be used: {error}; move it away, or restore it"
            ) from None
        room.keep()
        yield Opened(db, room)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)
