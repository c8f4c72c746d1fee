"""The SQLite file: how it is made, locked and opened."""

import fcntl
import os
import sqlite3
import time
from pathlib import Path

from services.registry.errors import StartError


def make_folder(folder: Path) -> None:
    """Make what is missing of it, for us alone. What is there already is left alone."""
    for each in reversed((folder, *folder.parents)):
        each.mkdir(mode=0o700, exist_ok=True)


def connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA busy_timeout = 5000")
    return db


def lock(path: Path, wait: float) -> int:
    """Make folder and file, for us alone, and take the lock on it within `wait` seconds.

    SQLite gives the files beside the database its mode. Raises `StartError`.
    """
    make_folder(path.parent)
    if path.parent.stat().st_mode & 0o077:
        raise StartError(f"{path.parent}: open to others: chmod 0700 it")
    os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
    taken = os.open(path.with_name(f"{path.name}.lock"), os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(taken, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(taken)
                raise StartError("another registry has this database: stop it first") from None
            time.sleep(0.02)  # The one before is still ending.
        else:
            return taken
