"""Brings a database to the newest schema: the numbered files of `migrations/`, in order."""

import sqlite3
from collections.abc import Iterator
from importlib.resources import files

from cove.registry.v1.registry_pb2 import Environment
from services.registry.errors import StartError


def migrate(db: sqlite3.Connection) -> None:
    """Apply what is missing, all or nothing.

    The transaction is the lock: a second process waits for it, then finds nothing
    to do. Raises `StartError` when the database is newer than this code.
    """
    known = _migrations()
    db.create_function("nanoseconds", 2, _nanoseconds, deterministic=True)
    db.execute("BEGIN IMMEDIATE")
    try:
        db.execute("CREATE TABLE IF NOT EXISTS migration (version INTEGER PRIMARY KEY) STRICT")
        (version,) = db.execute("SELECT coalesce(max(version), 0) FROM migration").fetchone()
        if version > max(known):
            raise StartError(
                f"the database has schema {version}, this registry knows {max(known)}: "
                "start the version that wrote it, or a newer one"
            )
        for number in sorted(known):
            if number > version:
                for statement in _statements(known[number]):
                    db.execute(statement)
                db.execute("INSERT INTO migration VALUES (?)", (number,))
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _nanoseconds(document: bytes, field: str) -> int:
    """A time in a document, for migrations that give it a column."""
    time: int = getattr(Environment.FromString(document), field).ToNanoseconds()
    return time


def _migrations() -> dict[int, str]:
    folder = files("services.registry") / "migrations"
    return {
        int(file.name.split("_")[0]): file.read_text()
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    }


def _statements(script: str) -> Iterator[str]:
    """`executescript` would commit what was begun, so the statements are run one by one."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
