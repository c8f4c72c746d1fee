"""A store on whatever database a test is given."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

from services.registry.postgres.store import PostgresStore
from services.registry.retention import Retention
from services.registry.sqlite import SqliteStore
from services.registry.store import Clock

AnyStore: TypeAlias = SqliteStore | PostgresStore


def open_store(
    database: str, *, now: Clock | None = None, retention: Retention | None = None
) -> AbstractAsyncContextManager[AnyStore]:
    """`database` is a path, or a URL of PostgreSQL."""
    if database.startswith("postgresql:"):
        return PostgresStore.open(database, now=now, retention=retention)
    if now:
        return SqliteStore.open(Path(database), now=now, retention=retention)
    return SqliteStore.open(Path(database), retention=retention)
