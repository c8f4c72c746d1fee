"""All environments in the SQLite file at one revision."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from typing import Final

from services.registry.errors import WatcherTooSlow
from services.registry.feed import MAX_READ
from services.registry.selecting import PLACEHOLDER, statement
from services.registry.sqlite_rows import COLUMNS, page_of
from services.registry.store import BY_NAME, Key, Place, Record

_PAGE: Final = 256


@asynccontextmanager
async def snapshot(
    connect: Callable[[], sqlite3.Connection], tenant: str | None, limit: float
) -> AsyncIterator["SqliteSnapshot"]:
    """Holds the database at one revision, for at most `limit` seconds, or until it has given all
    there is."""
    with closing(connect()) as db:
        # As long as it is held, the WAL cannot be reset: a reader who stalls
        # must not fill the disk.
        timer = asyncio.get_running_loop().call_later(limit, db.close)
        try:
            yield SqliteSnapshot(db, tenant)
        finally:
            timer.cancel()


class SqliteSnapshot:
    def __init__(self, db: sqlite3.Connection, tenant: str | None) -> None:
        db.execute("BEGIN")  # The first read fixes what all others see.
        (self.revision,) = db.execute("SELECT latest FROM counter").fetchone()
        self._db = db
        self._tenant = tenant
        self._more = True

    async def page(self, after: Key | None) -> list[Record]:
        if not self._more:
            return []
        place = Place(*after) if after else None
        query, values = statement(COLUMNS, self._tenant, place, (), BY_NAME, _PAGE + 1)
        try:
            rows = self._db.execute(query.replace(PLACEHOLDER, "?"), values)
            with closing(rows):
                records, self._more = page_of(rows, _PAGE, MAX_READ)
        except sqlite3.ProgrammingError:  # Closed by the timer.
            raise WatcherTooSlow("the snapshot was read too slowly") from None
        if not self._more:
            self._db.close()
        return records
