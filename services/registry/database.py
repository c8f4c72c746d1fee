"""The SQLite file: how it is made, locked, opened, brought up to date and written to."""

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from services.registry.errors import DiskFull, StartError
from services.registry.migrate import migrations, missing

T = TypeVar("T")


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


def migrate(db: sqlite3.Connection) -> None:
    """Apply what is missing, all or nothing.

    The transaction is the lock: a second process waits for it, then finds nothing
    to do. Raises `StartError` when the database is newer than this code.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        db.execute("CREATE TABLE IF NOT EXISTS migration (version INTEGER PRIMARY KEY) STRICT")
        applied = [version for (version,) in db.execute("SELECT version FROM migration")]
        for number, script in missing(migrations("sqlite"), applied):
            for statement in _statements(script):
                db.execute(statement)
            db.execute("INSERT INTO migration VALUES (?)", (number,))
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    """`executescript` would commit what was begun, so the statements are run one by one."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def commit(
    db: sqlite3.Connection, group: Sequence[Callable[[sqlite3.Connection], T]]
) -> list[T | Exception]:
    """Do all of it in one transaction: what each job returned, or what it ended with.

    Each has a savepoint: one that fails takes nothing of the others with it. Raises
    `DiskFull`, or what SQLite does, when nothing of it was kept.
    """
    try:
        db.execute("BEGIN IMMEDIATE")
        results = [_attempt(db, job) for job in group]
        db.execute("COMMIT")
    except Exception as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise _told(error) from None
    return results


def _attempt(db: sqlite3.Connection, job: Callable[[sqlite3.Connection], T]) -> T | Exception:
    db.execute("SAVEPOINT job")
    result: T | Exception
    try:
        result = job(db)
    except Exception as error:  # Its caller gets it; the others are not concerned.
        if not db.in_transaction:  # SQLite gave up the whole of it.
            raise
        db.execute("ROLLBACK TO job")
        result = _told(error)
    db.execute("RELEASE job")
    return result


def _told(error: Exception) -> Exception:
    """The failure as the caller is told of it."""
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return DiskFull("the disk of the registry is full")
    return error
