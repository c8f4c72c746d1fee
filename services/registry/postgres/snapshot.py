"""All environments at one revision, from a transaction that sees nothing later."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final
from weakref import WeakValueDictionary

from services.registry.errors import WatcherTooSlow
from services.registry.feed import MAX_READ
from services.registry.postgres.database import Database, drop, is_away, unavailable
from services.registry.postgres.follow import SPAN
from services.registry.postgres.pages import read_page
from services.registry.store import BY_NAME, Key, Place, Record

_PAGE: Final = 256


class Snapshots:
    """Of one database. `most` are held at once, as each holds one of the readers, and `each` of
    one tenant: its readers, who may stall, leave room for others'."""

    def __init__(self, database: Database, most: int, each: int) -> None:
        self._database = database
        self._room = asyncio.Semaphore(most)
        self._each = each
        self._of: WeakValueDictionary[str | None, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def open(self, tenant: str | None, limit: float) -> AsyncIterator["PostgresSnapshot"]:
        """Holds the database at one revision, for at most `limit` seconds, or until it has given
        all there is: it may be long after that before its reader has read that."""
        free = await self._take(tenant)
        try:
            connection, revision = await self._begin()
        except BaseException:
            free()
            raise
        snapshot = PostgresSnapshot(self._database, connection, tenant, revision, free)
        # As long as it is held, nothing that was deleted can be cleared away.
        timer = asyncio.get_running_loop().call_later(limit, snapshot.expire)
        try:
            yield snapshot
        finally:
            timer.cancel()
            await snapshot.close()

    async def _take(self, tenant: str | None) -> Callable[[], None]:
        """Wait for room; what gives it back, once."""
        own = self._of.setdefault(tenant, asyncio.Semaphore(self._each))
        await own.acquire()
        try:
            await self._room.acquire()
        except BaseException:
            own.release()
            raise

        def free() -> None:
            self._room.release()
            own.release()

        return free

    async def _begin(self) -> tuple[Any, int]:
        try:
            return await self._attempt()
        except Exception as error:
            if not is_away(error):
                raise
        await self._database.renew()
        try:
            return await self._attempt()
        except Exception as error:
            if not is_away(error):
                raise
            raise unavailable(error) from error

    async def _attempt(self) -> tuple[Any, int]:
        """A connection that sees nothing later than the revision."""
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
        return connection, revision


class PostgresSnapshot:
    def __init__(
        self,
        database: Database,
        connection: Any,
        tenant: str | None,
        revision: int,
        free: Callable[[], None],
    ) -> None:
        self._database = database
        self._connection = connection
        self._tenant = tenant
        self._free = free
        self._expired = False
        self.revision = revision

    async def page(self, after: Key | None) -> list[Record]:
        if self._expired:
            raise _too_slow()
        if self._connection is None:  # It has given all there is.
            return []
        place = Place(*after) if after else None
        asked = self._tenant, place, (), BY_NAME, _PAGE, MAX_READ
        try:
            page = await read_page(self._connection, *asked)
        except Exception as error:
            if self._expired:
                raise _too_slow() from None
            if is_away(error):
                raise unavailable(error) from error
            raise
        if not page.more:
            await self.close()
        return page.records

    def expire(self) -> None:
        """End it now: whoever reads it is too slow."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            self._expired = True
            drop(connection)
            self._free()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.execute("ROLLBACK")
            except Exception:
                drop(connection)
            finally:
                self._free()
                await self._database.release(connection)


def _too_slow() -> WatcherTooSlow:
    return WatcherTooSlow("the snapshot was read too slowly")
