"""Copies a PostgreSQL database into a file of SQLite, and such a file into an empty one.

Both stores have the same tables, so a backup is the same whatever it is of, and goes into either.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import asyncpg

from services.registry.copying import writing
from services.registry.database import migrate
from services.registry.errors import StartError
from services.registry.mending import Statement
from services.registry.migrate import migrations
from services.registry.postgres import migrate as postgres
from services.registry.postgres.database import Connection, Database, is_away, started

TABLES: Final = (
    *("environment", "request", "counter", "secret", "quota", "audit", "audit_removed"),
    *("token", "token_hash", "audit_swept"),
)
"""All but `change`, the history, and `migration`."""
_BATCH: Final = 500
_WAIT: Final = 10.0
_LONG: Final = 3600
_MARK: Final = "restored"
"""The secret that says which backup a database is of, and the revision it began with."""
_OURS: Final = (
    "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema AND tablename = ANY($1)"
)
_OTHERS: Final = (
    "SELECT count(DISTINCT client_addr) FROM pg_stat_activity WHERE datname = current_database()"
    " AND usename = current_user AND application_name LIKE 'cove-registry listener'"
)


class NotEmpty(Exception):
    """The database has something that is not of the backup that is restored."""


async def copy(url: str, target: Path, *, history: bool = False) -> None:
    """Make `target` a copy of the database as it is at one moment; nobody waits for that.

    Without its history, or with it less the contents. Raises `StartError` where it cannot be read
    or is not of this version, OSError, `sqlite3.Error`; then `target` may be there in part.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = await started(Database(url), _WAIT)
    try:
        with closing(writing(target)) as db:
            db.execute("PRAGMA synchronous = OFF")  # Nobody needs it when this is killed.
            migrate(db)
            # It locks nothing, and the disk that it writes to may be slow.
            await connection.execute("SET idle_in_transaction_session_timeout = 0")
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                await _check_version(connection)
                for table in TABLES:
                    await _pull(connection, db, table)
                if history:
                    await _pull(connection, db, "change", without="document")
            if not history:
                db.execute("UPDATE counter SET compacted = latest")
    except Exception as error:
        if not is_away(error):
            raise
        raise StartError(f"the database cannot be read: {type(error).__name__}: {error}") from None
    finally:
        connection.terminate()


async def check_empty(url: str, mark: str) -> None:
    """Raises `NotEmpty`, unless it has what `load` with the same `mark` put into it."""
    connection = await started(Database(url), _WAIT)
    try:
        await _check_empty(connection, mark)
    finally:
        connection.terminate()


async def load(url: str, source: Path, mark: str) -> int:
    """Put what a file has into an empty database, all or nothing. `mark` says what it is of.

    A second time does nothing, if nobody wrote to it since. Returns the revision that it begins
    with. Raises `NotEmpty`, `StartError`.
    """
    connection = await started(Database(url), _WAIT)
    try:
        with closing(sqlite3.connect(source)) as db:
            async with connection.transaction():
                await postgres.lock(connection)
                if (begun := await _check_empty(connection, mark)) is not None:
                    return begun
                await postgres.migrate(connection)
                for table in TABLES:
                    await connection.execute(f"DELETE FROM {table}")  # noqa: S608 - what it begins with.
                    await _push(connection, db, table)
                revision: int = await connection.fetchval("SELECT latest FROM counter")
                await connection.execute(
                    "INSERT INTO secret VALUES ($1, $2)"
                    " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                    _MARK,
                    f"{mark} {revision}".encode(),
                )
                return revision
    finally:
        connection.terminate()


async def mend(url: str, statements: Sequence[Statement]) -> None:
    """Run these in one transaction, while no registry writes. Raises `StartError`."""
    connection = await started(Database(url), _WAIT)
    try:
        async with connection.transaction():
            await connection.execute("SELECT latest FROM counter FOR UPDATE")
            for text, *values in statements:
                first, *rest = text.split("?")
                numbered = "".join(f"${n}{each}" for n, each in enumerate(rest, start=1))
                await connection.execute(first + numbered, *values, timeout=_LONG)
    finally:
        connection.terminate()


async def in_use(url: str) -> bool:
    """Whether a registry runs on it, wherever."""
    connection = await started(Database(url), _WAIT)
    try:
        return bool(await connection.fetchval(_OTHERS))
    finally:
        connection.terminate()


async def _check_version(connection: Connection) -> None:
    known = {each.number for each in migrations("postgres")}
    try:
        applied = {row[0] for row in await connection.fetch("SELECT version FROM migration")}
    except asyncpg.UndefinedTableError:
        raise StartError("the database has no registry") from None
    if applied != known:
        raise StartError(
            f"the database has schema {max(applied, default=0)}, {max(known)} is known here:"
            " use the version that runs on it"
        )


async def _check_empty(connection: Connection, mark: str) -> int | None:
    """The revision where it is already what it is to become; None where it is empty."""
    if not await connection.fetchval(_OURS, [*TABLES, "change", "migration"]):
        return None
    try:
        value = await connection.fetchval("SELECT value FROM secret WHERE name = $1", _MARK)
        latest: int = await connection.fetchval("SELECT latest FROM counter")
    except asyncpg.UndefinedTableError:
        raise NotEmpty from None
    if value != f"{mark} {latest}".encode():
        raise NotEmpty
    return latest


async def _pull(
    connection: Connection, db: sqlite3.Connection, table: str, without: str = ""
) -> None:
    columns = _columns(db, table)
    read = ", ".join("NULL" if column == without else column for column in columns)
    places = ", ".join("?" * len(columns))
    put = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"  # noqa: S608
    db.execute("BEGIN")
    db.execute(f"DELETE FROM {table}")  # noqa: S608
    cursor = await connection.cursor(f"SELECT {read} FROM {table}")  # noqa: S608
    while rows := await cursor.fetch(_BATCH):
        db.executemany(put, [tuple(row) for row in rows])
    db.execute("COMMIT")


async def _push(connection: Connection, db: sqlite3.Connection, table: str) -> None:
    columns = _columns(db, table)
    await connection.copy_records_to_table(
        table, records=_rows(db, table, columns), columns=columns, timeout=_LONG
    )


def _rows(db: sqlite3.Connection, table: str, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    yield from db.execute(f"SELECT {', '.join(columns)} FROM {table}")  # noqa: S608


def _columns(db: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
