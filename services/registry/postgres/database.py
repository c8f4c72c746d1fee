"""Connections to PostgreSQL, and its failures as callers are told of them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Final, TypeAlias, TypeVar

import asyncpg

from services.registry.errors import DatabaseUnavailable, DiskFull, StartError

_log = logging.getLogger(__name__)

T = TypeVar("T")

Connection: TypeAlias = asyncpg.Connection

CONNECT_TIMEOUT: Final = 5.0
CALL_TIMEOUT: Final = 15.0
_READERS: Final = 12
_RETRY: Final = timedelta(seconds=1)

_SETTINGS: Final = {
    # Whoever holds the counter and is silent, stopped or cut off, must not hold up others.
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": "10s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "default_transaction_isolation": "read committed",
}

# Away, or not able to serve just now. What the database says of our statements or of
# their data is none of these.
_AWAY: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.LockNotAvailableError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresConnectionError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TargetServerAttributeNotMatched,
    asyncpg.TransactionRollbackError,
)


class Database:
    """One PostgreSQL database: connections to it, and a pool of those that read."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool: Any = None

    @asynccontextmanager
    async def pool(self) -> AsyncIterator[None]:
        """Reads are possible while the block runs."""
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=1,
            max_size=_READERS,
            init=_init,
            reset=_as_it_is,
            timeout=CONNECT_TIMEOUT,
            command_timeout=CALL_TIMEOUT,
            server_settings=_settings("reader"),
            target_session_attrs="read-write",
        )
        try:
            yield
        finally:
            self._pool.terminate()

    async def connect(self, purpose: str) -> Connection:
        """A connection of one's own. Raises what asyncpg does, or `StartError`.

        The purpose is what `pg_stat_activity` shows.
        """
        try:
            connection = await asyncpg.connect(
                self._url,
                timeout=CONNECT_TIMEOUT,
                command_timeout=CALL_TIMEOUT,
                server_settings=_settings(purpose),
                target_session_attrs="read-write",
            )
        except (ValueError, asyncpg.ClientConfigurationError):
            # Their texts quote parts of the URL, of which one may be the password.
            raise StartError(
                "COVE_REGISTRY__DATABASE: no URL of a PostgreSQL database: "
                "percent-encode special characters in user and password"
            ) from None
        await _init(connection)
        return connection

    async def read(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run the work on a connection of the pool, again on another if the first was dead.

        Raises `DatabaseUnavailable`.
        """
        return await self._twice(work, lambda: True)

    async def write(self, work: Callable[[Connection], Awaitable[T]], *, again: bool) -> T:
        """Run the work in a transaction, as `read` does.

        Once its COMMIT was sent nobody knows whether it was done: only with `again` it is run anew
        then, as it finds that out by itself. Raises `DatabaseUnavailable`.
        """
        deciding = True

        async def run(connection: Connection) -> T:
            nonlocal deciding
            deciding = True
            async with connection.transaction():
                result = await work(connection)
                deciding = False
            return result

        return await self._twice(run, lambda: again or deciding)

    async def _twice(
        self, work: Callable[[Connection], Awaitable[T]], may: Callable[[], bool]
    ) -> T:
        try:
            return await self._once(work)
        except Exception as error:
            if not is_away(error):
                raise
            held = isinstance(error, asyncpg.LockNotAvailableError)  # Nor is it longer waited for.
            if held or not may():
                raise unavailable(error) from error
        await self.renew()
        try:
            return await self._once(work)
        except Exception as error:
            if not is_away(error):
                raise
            raise unavailable(error) from error

    async def _once(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        connection = await self.acquire()
        try:
            return await work(connection)
        except Exception as error:
            if is_away(error):  # Else it is as good as before: a transaction was rolled back.
                drop(connection)
            raise
        finally:
            await self.release(connection)

    async def renew(self) -> None:
        """Where one connection is dead the others may be: each is made anew before its next use."""
        await self._pool.expire_connections()

    async def acquire(self) -> Any:
        """A connection of the pool; to be released. Raises `DatabaseUnavailable` when none comes
        free, for which those in use are not to blame."""
        try:
            return await self._pool.acquire(timeout=CONNECT_TIMEOUT)
        except TimeoutError as error:
            raise unavailable(error) from error

    async def release(self, connection: Any) -> None:
        """Give it back. The pool throws it away if it is of no use any more."""
        with suppress(asyncpg.PostgresError, *_AWAY):
            await self._pool.release(connection, timeout=CONNECT_TIMEOUT)


def drop(connection: Any) -> None:
    """End it at once, if it has not ended by itself."""
    with suppress(asyncpg.InterfaceError):  # Of a pool, which has it back already.
        connection.terminate()


def is_away(error: BaseException) -> bool:
    """Whether the database could not be used, whatever was asked of it."""
    return isinstance(error, _AWAY) and not isinstance(error, asyncpg.DataError | ValueError)


def unavailable(error: BaseException) -> DatabaseUnavailable | DiskFull:
    """The failure as the caller is told of it; the cause goes to the log."""
    _log.warning("the database cannot be used: %s: %s", type(error).__name__, error)
    if isinstance(error, asyncpg.DiskFullError):
        return DiskFull("the disk of the registry's database is full")
    return DatabaseUnavailable(
        "the database of the registry cannot be used just now", retry_after=_RETRY
    )


async def started(database: Database, wait: float) -> Connection:
    """The first connection, however long the database needs to come up within `wait` seconds.

    Raises `StartError`.
    """
    until = asyncio.get_running_loop().time() + wait
    while True:
        try:
            return await database.connect("starter")
        except Exception as error:
            if not is_away(error):
                raise
            refused = isinstance(error, asyncpg.InvalidAuthorizationSpecificationError)
            if refused or asyncio.get_running_loop().time() > until:
                raise StartError(
                    f"the database cannot be reached: {type(error).__name__}: {error}"
                ) from None
        await asyncio.sleep(0.2)


def _settings(purpose: str) -> dict[str, str]:
    return {**_SETTINGS, "application_name": f"cove-registry {purpose}"}


async def _as_it_is(_connection: Connection) -> None:
    """Readers leave nothing behind in a session: nothing needs to be undone."""


async def _init(connection: Connection) -> None:
    """What was acknowledged is on the disk, whatever the database's default is."""
    await connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false)"
        " WHERE current_setting('synchronous_commit') = 'off'"
    )
