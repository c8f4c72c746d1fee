"""Keeps environments in PostgreSQL, which any number of registries share."""

import secrets
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final, Self

import asyncpg

from servicekit.quota import NONE, Limits
from services.registry.errors import EnvironmentNotFound, StartError
from services.registry.feed import Event, Feed
from services.registry.postgres.commit import COLUMNS, NOW, Committer
from services.registry.postgres.database import Connection, Database, started
from services.registry.postgres.follow import SINCE, SPAN, Follower
from services.registry.postgres.migrate import migrate
from services.registry.postgres.pages import read_page
from services.registry.postgres.snapshot import PostgresSnapshot, Snapshots
from services.registry.postgres.tenants import PostgresQuotas, PostgresTrail, sweep_audit
from services.registry.postgres.tokens import PostgresTokens, sweep_tokens
from services.registry.retention import PART, Retention, ns
from services.registry.selecting import CENSUS
from services.registry.store import (
    BY_NAME,
    Answer,
    Change,
    Clock,
    Key,
    Order,
    Page,
    Place,
    Record,
    RequestId,
    Span,
    Write,
)
from services.registry.trail import Entry
from services.registry.writer import Observe, Writer, unobserved
from services.registry.written import Job, Written

_FIND: Final = f"SELECT {COLUMNS} FROM environment WHERE tenant = $1 AND name = $2"  # noqa: S608
_START_WAIT: Final = 30.0
_KEY_BYTES: Final = 32
_SNAPSHOT_LIMIT: Final = 30.0
_GROUP: Final = 64
"""Writes that share a commit, at most: what a MiB each, as it was, as it is, in the history and in
an answer, have room for in one message and in the memory of both sides."""
_SNAPSHOTS: Final = 6
_SNAPSHOTS_OF_ONE: Final = 3


class PostgresStore:
    """See `Store`. Made by `open`."""

    def __init__(
        self,
        database: Database,
        latest: int,
        channel: str,
        now: Clock | None,
        retention: Retention,
        limits: Limits,
        observe: Observe,
    ) -> None:
        self.quotas = PostgresQuotas(database, now, retention)
        self.trail = PostgresTrail(database)
        self.tokens = PostgresTokens(database, now, retention)
        self._database = database
        self._retention = retention
        self._clock = now
        self._feed = Feed(latest)
        self._follower = Follower(database, channel, self._feed)
        self._snapshots = Snapshots(database, _SNAPSHOTS, _SNAPSHOTS_OF_ONE)
        self._committer = Committer(database, channel, now=now, retention=retention, limits=limits)
        self._writer: Writer[Job, Written] = Writer(
            self._committer.commit, self._publish, observe=observe, max_group=_GROUP
        )

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        now: Clock | None = None,
        retention: Retention | None = None,
        limits: Limits = NONE,
        observe: Observe = unobserved,
        start_wait: float = _START_WAIT,
    ) -> AsyncIterator[Self]:
        """Bring the database to the newest schema, then serve from it.

        `now` is the database's clock unless given. Raises `StartError` when the database
        cannot be reached within `start_wait` seconds, refuses, or is too new.
        """
        database = Database(url)
        connection = await started(database, start_wait)
        try:
            await migrate(connection)
            # The tables may be in any schema that the connection's search path names first.
            channel = await connection.fetchval("SELECT 'cove_' || 'counter'::regclass::oid")
            _, latest = await connection.fetchrow(SPAN)
        except asyncpg.PostgresError as error:
            raise StartError(f"the database refuses: {type(error).__name__}: {error}") from None
        finally:
            connection.terminate()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(database.pool())
            store = cls(database, latest, channel, now, retention or Retention(), limits, observe)
            stack.callback(store._committer.close)
            stack.push_async_callback(store._writer.close)
            await stack.enter_async_context(store._follower.following())
            yield store

    @property
    def feed(self) -> Feed:
        return self._feed

    @property
    def commits(self) -> int:
        """How many groups were committed."""
        return self._writer.groups

    @property
    def waiting(self) -> int:
        return self._writer.waiting

    async def census(self) -> Mapping[int, int]:
        rows = await self._database.read(lambda db: db.fetch(CENSUS))
        return dict(rows)

    def now(self) -> int:
        return self._committer.now

    async def write(
        self,
        key: Key,
        change: Change,
        request: RequestId | None = None,
        entry: Entry | None = None,
    ) -> bytes:
        job = Job([Write(key, change)], request, entry=entry)
        return (await self._writer.run(job)).response

    async def write_all(
        self, writes: Sequence[Write], answer: Answer, request: RequestId | None = None
    ) -> bytes:
        return (await self._writer.run(Job(writes, request, answer))).response

    async def get(self, key: Key) -> Record:
        row = await self._database.read(lambda db: db.fetchrow(_FIND, *key))
        if row is None:
            raise EnvironmentNotFound("no such environment", name=key.name)
        return Record(*row)

    async def exists(self, key: Key) -> bool:
        sql = "SELECT 1 FROM environment WHERE tenant = $1 AND name = $2"
        return await self._database.read(lambda db: db.fetchval(sql, *key)) is not None

    async def page(
        self,
        tenant: str | None,
        after: Place | None,
        *,
        states: Collection[int] = (),
        order: Order = BY_NAME,
        limit: int,
        max_bytes: int,
    ) -> Page:
        asked = tenant, after, states, order, limit, max_bytes
        return await self._database.read(lambda db: read_page(db, *asked))

    async def span(self) -> Span:
        return Span(*await self._database.read(lambda db: db.fetchrow(SPAN)))

    async def history(self, after: int, limit: int) -> list[Event]:
        rows = await self._database.read(lambda db: db.fetch(SINCE, after, limit))
        return [Event(*row) for row in rows]

    def snapshot(
        self, tenant: str | None, *, limit: float = _SNAPSHOT_LIMIT
    ) -> AbstractAsyncContextManager[PostgresSnapshot]:
        """Holds the database at one revision, for at most `limit` seconds."""
        return self._snapshots.open(tenant, limit)

    async def sweep(self) -> int:
        return await self._database.write(self._sweep, again=True)

    async def _sweep(self, db: Connection) -> int:
        compacted, latest = await db.fetchrow(f"{SPAN} FOR UPDATE")
        now = self._clock() if self._clock else await db.fetchval(f"SELECT {NOW}")
        old = await db.fetchval(
            "SELECT coalesce(max(revision), 0) FROM"
            " (SELECT revision, time FROM change ORDER BY revision LIMIT $1) part"
            " WHERE time < $2",
            PART,
            now - ns(self._retention.changes_age),
        )
        until = self._retention.until(compacted, latest, old)
        changes = await db.execute("DELETE FROM change WHERE revision <= $1", until)
        await db.execute("UPDATE counter SET compacted = $1", until)
        requests = await db.execute(
            "DELETE FROM request WHERE ctid IN"
            " (SELECT ctid FROM request WHERE time < $1 ORDER BY time LIMIT $2)",
            now - ns(self._retention.requests_age),
            PART,
        )
        audited = await sweep_audit(db, now - ns(self._retention.audit_age))
        ended = await sweep_tokens(db, now, now - ns(self._retention.audit_age))
        return audited + ended + sum(int(each.split()[1]) for each in (changes, requests))

    async def secret(self, name: str) -> bytes:
        async def work(db: Connection) -> bytes:
            await db.execute(
                "INSERT INTO secret VALUES ($1, $2) ON CONFLICT DO NOTHING",
                name,
                secrets.token_bytes(_KEY_BYTES),
            )
            value: bytes = await db.fetchval("SELECT value FROM secret WHERE name = $1", name)
            return value

        return await self._database.read(work)

    def _publish(self, written: Sequence[Written]) -> None:
        self._follower.own([event for each in written for event in each.events])
