"""All environments at one revision, from a transaction that sees nothing later."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from services.registry.errors import WatcherTooSlow
from services.registry.postgres.commit import COLUMNS
from services.registry.postgres.database import Database, drop, is_away, unavailable
from services.registry.postgres.follow import SPAN
from services.registry.store import Key, Record

_PAGE: Final = 256


class Snapshots:
    """Of one database. Few are held at once, as each holds one of the readers."""

    def __init__(self, database: Database, most: int) -> None:
        self._database = database
        self._room = asyncio.Semaphore(most)

    @asynccontextmanager
    async def open(self, tenant: str | None, limit: float) -> AsyncIterator["PostgresSnapshot"]:
        """Holds the database at one revision, for at most `limit` seconds."""
        async with self._room:
            snapshot = await self._begin(tenant)
            # As long as it is held, nothing that was deleted can be cleared away.
            timer = asyncio.get_running_loop().call_later(limit, snapshot.expire)
            try:
                yield snapshot
            finally:
                timer.cancel()
                await snapshot.close()

    async def _begin(self, tenant: str | None) -> "PostgresSnapshot":
        for last in (False, True):
            try:
                return await self._attempt(tenant)
            except Exception as error:
                if not is_away(error):
                    raise
                if last:
                    raise unavailable(error) from error
        raise AssertionError

    async def _attempt(self, tenant: str | None) -> "PostgresSnapshot":
        connection = await self._database.acquire()
        try:
            await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            # A reader may take its time between two pages.
            await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            _, revision = await connection.fetchrow(SPAN)
        except BaseException:
            drop(connection)
            await self._database.release(connection)
            raise
        return PostgresSnapshot(self._database, connection, tenant, revision)


class PostgresSnapshot:
    def __init__(
        self, database: Database, connection: Any, tenant: str | None, revision: int
    ) -> None:
        self._database = database
        self._connection = connection
        self._tenant = tenant
        self._expired = False
        self.revision = revision

    async def page(self, after: Key | None) -> list[Record]:
        if self._expired:
            raise _too_slow()
        if self._connection is None:  # It has given all there is.
            return []
        condition, values = where(self._tenant, after)
        try:
            rows = await self._connection.fetch(
                f"SELECT {COLUMNS} FROM environment WHERE {condition}"  # noqa: S608
                f" ORDER BY name, tenant LIMIT {_PAGE}",
                *values,
            )
        except Exception as error:
            if self._expired:
                raise _too_slow() from None
            if is_away(error):
                raise unavailable(error) from error
            raise
        if len(rows) < _PAGE:
            await self.close()
        return [Record(*row) for row in rows]

    def expire(self) -> None:
        """End it now: whoever reads it is too slow."""
        if self._connection is not None:
            self._expired = True
            drop(self._connection)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.execute("ROLLBACK")
            except Exception:
                drop(connection)
            finally:
                await self._database.release(connection)


def where(tenant: str | None, after: Key | None) -> tuple[str, tuple[str, ...]]:
    """The condition that begins a page, in the order of name and tenant."""
    if tenant is not None:
        return "tenant = $1 AND name > $2", (tenant, after.name if after else "")
    return "(name, tenant) > ($1, $2)", (after.name, after.tenant) if after else ("", "")


def _too_slow() -> WatcherTooSlow:
    return WatcherTooSlow("the snapshot was read too slowly")
