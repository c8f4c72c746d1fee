"""The SQLite file: how it is made, locked, opened, brought up to date and written to."""

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from servicekit.errors import ServiceError
from services.registry.errors import DiskFull, StartError
from services.registry.migrate import migrations, missing, nanoseconds

T = TypeVar("T")


@contextmanager
def starting(path: Path) -> Iterator[None]:
    """Tells of what is wrong with the file, and what to do. Raises `StartError`."""
    try:
        yield
    except sqlite3.Error as error:
        raise StartError(
            f"{path}: {error}: if it is damaged, restore a backup with `cove admin restore`"
        ) from error
    except OSError as error:
        raise StartError(
            f"{error.filename or path}: {error.strerror}: see to it, or set"
            " COVE_REGISTRY__DATABASE to another path"
        ) from error


def make_folder(folder: Path) -> None:
    """Make what is missing of it, for us alone. What is there already is left alone."""
    for each in reversed((folder, *folder.parents)):
        each.mkdir(mode=0o700, exist_ok=True)


class Connection(sqlite3.Connection):
    """To the file. `latest` is the last revision as the transaction of `commit` has it."""

    latest = 0


def connect(path: Path) -> Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Connection)
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
    db.create_function("nanoseconds", 2, nanoseconds, deterministic=True)
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


def commit(db: Connection, group: Sequence[Callable[[Connection], T]]) -> list[T | Exception]:
    """Do all of it in one transaction: what each job returned, or what it ended with.

    One that fails takes nothing of the others with it. A rule that refuses has written nothing;
    where anything else goes wrong, which is rare, all is done anew, each behind a savepoint.
    Raises `DiskFull`, or what SQLite does, when nothing of it was kept.
    """
    try:
        try:
            results = decide(db, group)
        except Exception:
            results = decide(db, group, attempt=_attempted)
    except Exception as error:
        raise _told(error) from None
    finish(db)
    return results


def decide(
    db: Connection,
    group: Sequence[Callable[[Connection], T]],
    *,
    attempt: Callable[[Connection, Callable[[Connection], T]], T | Exception] | None = None,
) -> list[T | Exception]:
    """As `commit`, up to the COMMIT, which is `finish`. Raises what a job does that is no rule's;
    then nothing was done."""
    try:
        db.execute("BEGIN IMMEDIATE")
        (before,) = db.execute("SELECT latest FROM counter").fetchone()
        db.latest = before
        results = [(attempt or _decided)(db, job) for job in group]
        if db.latest != before:
            db.execute("UPDATE counter SET latest = ?", (db.latest,))
    except Exception:
        _undo(db)
        raise
    return results


def finish(db: Connection) -> None:
    """Make durable what was decided. Raises as `commit`."""
    try:
        db.execute("COMMIT")
    except Exception as error:
        _undo(db)
        raise _told(error) from None


def _undo(db: Connection) -> None:
    if db.in_transaction:
        db.execute("ROLLBACK")


def _decided(db: Connection, job: Callable[[Connection], T]) -> T | Exception:
    try:
        return job(db)
    except ServiceError as error:
        return error


def _attempted(db: Connection, job: Callable[[Connection], T]) -> T | Exception:
    db.execute("SAVEPOINT job")
    before = db.latest
    result: T | Exception
    try:
        result = job(db)
    except Exception as error:  # Its caller gets it; the others are not concerned.
        if not db.in_transaction:  # SQLite gave up the whole of it.
            raise
        db.execute("ROLLBACK TO job")
        db.latest = before
        result = _told(error)
    db.execute("RELEASE job")
    return result


def _told(error: Exception) -> Exception:
    """The failure as the caller is told of it."""
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return DiskFull("the disk of the registry is full")
    return error
