"""Opens the small SQLite files that servers keep beside what they are about."""

import sqlite3
from pathlib import Path
from typing import Literal


def connect(
    path: Path,
    *,
    schema: str,
    version: int,
    synchronous: Literal["FULL", "NORMAL"],
    too_new: type[Exception],
) -> sqlite3.Connection:
    """Made if absent, 0600. With FULL what is committed survives a loss of power, too.

    Raises `too_new` for one of a later version, and leaves that as it is.
    """
    path.touch(mode=0o600)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    (found,) = db.execute("PRAGMA user_version").fetchone()
    if found > version:
        db.close()
        raise too_new(f"{path}: version {found}; this program knows {version}")
    db.executescript(
        f"PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};"
        f"{schema} PRAGMA user_version = {version};"
    )
    return db
