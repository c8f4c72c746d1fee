"""Keeps environments in a SQLite file: one writer, readers beside it.

Reads, and what a write does before its COMMIT, run on the event loop: they take some
microseconds, less than handing them to a thread would. Commits, and all that takes longer, have
a thread. Writers do not block readers, as the file is in WAL mode.
"""

import asyncio
import os
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    closing,
    suppress,
)
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Self, TypeVar

from servicekit.quota import NONE, Limits
from servicekit.room import Room
from services.registry.database import (
    Connection,
    commit,
    connect,
    decide,
    finish,
    lock,
    migrate,
    starting,
)
from services.registry.errors import EnvironmentNotFound
from services.registry.feed import Event, Feed, fitting
from services.registry.retention import Retention, ns, sweep
from services.registry.selecting import CENSUS, HISTORY, PLACEHOLDER, statement
from services.registry.sqlite_rows import COLUMNS, apply, find, page_of, remember
from services.registry.sqlite_snapshot import SqliteSnapshot, snapshot
from services.registry.sqlite_tenants import SqliteQuotas, SqliteTrail, append
from services.registry.sqlite_tokens import SqliteTokens
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
from services.registry.written import Job, Written, replayed, run

T = TypeVar("T")

_LOCK_WAIT: Final = 5.0
_ROOM: Final = 8 << 20
"""Enough for some thousand deletes on a full disk."""
_KEY_BYTES: Final = 32
_SNAPSHOT_LIMIT: Final = 30.0

_ON_THE_LOOP: Final = 64
"""Writes that are decided on the event loop at once, at most."""


class _Work(NamedTuple):
    """What the writer does in its transaction."""

    do: Callable[[Connection], Written]
    brief: bool = False
    """Whether it takes some microseconds, whatever it is about."""


class SqliteStore:
    """See `Store`. One process at a time has the file; a second one is refused."""

    def __init__(
        self,
        writing: Connection,
        reading: sqlite3.Connection,
        *,
        room: Room,
        connect: Callable[[], sqlite3.Connection],
        now: Clock,
        retention: Retention,
        limits: Limits,
        observe: Observe,
    ) -> None:
        self._reading = reading
        self._room = room
        self._connect = connect
        self._now = now
        self._retention = retention
        self._limits = limits
        self.quotas = SqliteQuotas(reading, self._run, self._once)
        self.trail = SqliteTrail(reading, self._run)
        self.tokens = SqliteTokens(reading, self._run, self._once, now)
        (latest,) = reading.execute("SELECT latest FROM counter").fetchone()
        self._feed = Feed(latest)
        self._writing = writing
        self._thread = ThreadPoolExecutor(1, "writer")
        self._writer: Writer[_Work, Written] = Writer(self._commit, self._publish, observe=observe)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        *,
        now: Clock = time.time_ns,
        retention: Retention | None = None,
        limits: Limits = NONE,
        observe: Observe = unobserved,
        lock_wait: float = _LOCK_WAIT,
    ) -> AsyncIterator[Self]:
        """Make the file if absent and bring it to the newest schema.

        `limits` are those of a tenant that has none of its own.
        Raises `StartError` when another process has it, it is too new, or cannot be used.
        """
        reconnect = partial(connect, path)
        async with AsyncExitStack() as stack:
            with starting(path):
                taken = await asyncio.to_thread(lock, path, lock_wait)
                stack.callback(os.close, taken)
                room = stack.enter_context(Room.kept(path, _ROOM))
                writing = stack.enter_context(closing(reconnect()))
                await asyncio.to_thread(migrate, writing)
                reading = stack.enter_context(closing(reconnect()))
                reading.execute("PRAGMA query_only = ON")
                await asyncio.to_thread(room.keep)
                store = cls(
                    writing,
                    reading,
                    room=room,
                    connect=reconnect,
                    now=now,
                    retention=retention or Retention(),
                    limits=limits,
                    observe=observe,
                )
            stack.callback(store._thread.shutdown)
            stack.push_async_callback(store._writer.close)
            yield store

    @property
    def feed(self) -> Feed:
        return self._feed

    @property
    def commits(self) -> int:
        """How often the disk was waited for."""
        return self._writer.groups

    @property
    def waiting(self) -> int:
        return self._writer.waiting

    async def census(self) -> Mapping[int, int]:
        def count() -> Mapping[int, int]:
            with closing(self._connect()) as db:  # Of many it takes long; others go on reading.
                return dict(db.execute(CENSUS).fetchall())

        return await asyncio.to_thread(count)

    def now(self) -> int:
        return self._now()

    async def write(
        self,
        key: Key,
        change: Change,
        request: RequestId | None = None,
        entry: Entry | None = None,
    ) -> bytes:
        return await self._done(Job([Write(key, change)], request, entry=entry))

    async def write_all(
        self, writes: Sequence[Write], answer: Answer, request: RequestId | None = None
    ) -> bytes:
        return await self._done(Job(writes, request, answer))

    async def _done(self, job: Job) -> bytes:
        work = _Work(partial(self._write, job), brief=job.answer is None)
        return (await self._writer.run(work)).response

    def _write(self, job: Job, db: Connection) -> Written:
        now = self._now()
        if job.request and (known := self._answered(db, job.request, now)) is not None:
            return Written(known)
        written = run(job, partial(apply, db, now, self._limits))
        if job.request:
            remember(db, job.request, now, written.response)
        if job.entry and written.events:
            append(db, [job.entry])
        return written

    def _once(
        self, db: sqlite3.Connection, request: RequestId | None, work: Callable[[int], bytes]
    ) -> bytes:
        now = self._now()
        if request is None:
            return work(now)
        if (known := self._answered(db, request, now)) is not None:
            return known
        response = work(now)
        remember(db, request, now, response)
        return response

    def _answered(self, db: sqlite3.Connection, request: RequestId, now: int) -> bytes | None:
        row = db.execute(
            "SELECT digest, response FROM request WHERE tenant = ? AND principal = ?"
            " AND rpc = ? AND request_id = ? AND time > ?",
            (*request[:4], now - ns(self._retention.requests_age)),
        ).fetchone()
        return replayed(request, *row) if row else None

    async def get(self, key: Key) -> Record:
        if (record := find(self._reading, key)) is None:
            raise EnvironmentNotFound("no such environment", name=key.name)
        return record

    async def exists(self, key: Key) -> bool:
        return find(self._reading, key) is not None

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
        query, values = statement(COLUMNS, tenant, after, states, order, limit + 1)
        rows = self._reading.execute(query.replace(PLACEHOLDER, "?"), values)
        with closing(rows):
            return page_of(rows, limit, max_bytes)

    async def span(self) -> Span:
        return Span(*self._reading.execute("SELECT compacted, latest FROM counter").fetchone())

    async def history(self, after: int, limit: int) -> list[Event]:
        rows = self._reading.execute(
            f"{HISTORY} WHERE c.revision > ? ORDER BY c.revision LIMIT ?",
            (after, limit),
        )
        with closing(rows):
            return fitting(map(Event._make, rows))

    def snapshot(
        self, tenant: str | None, *, limit: float = _SNAPSHOT_LIMIT
    ) -> AbstractAsyncContextManager[SqliteSnapshot]:
        """Holds the database at one revision, for at most `limit` seconds."""
        return snapshot(self._connect, tenant, limit)

    async def sweep(self) -> int:
        await asyncio.to_thread(self._room.keep)
        return await self._run(lambda db: sweep(db, self._now(), self._retention))

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something else than a write of an environment, in the thread that writes."""
        results: list[T] = []

        def job(db: sqlite3.Connection) -> Written:
            results.append(work(db))
            return Written(b"")

        await self._writer.run(_Work(job))
        return results[-1]

    async def secret(self, name: str) -> bytes:
        """A key that is made once and never leaves the database."""

        def work(db: sqlite3.Connection) -> Written:
            new = (name, secrets.token_bytes(_KEY_BYTES))
            db.execute("INSERT INTO secret VALUES (?, ?) ON CONFLICT DO NOTHING", new)
            row = db.execute("SELECT value FROM secret WHERE name = ?", (name,)).fetchone()
            return Written(bytes(row[0]))

        return (await self._writer.run(_Work(work))).response

    async def _commit(self, group: Sequence[_Work]) -> Sequence[Written | Exception]:
        """A few brief ones are decided here: two threads that take turns at the interpreter with
        each statement take far longer. The disk is always waited for in the other."""
        loop = asyncio.get_running_loop()
        works = [each.do for each in group]
        if len(group) <= _ON_THE_LOOP and all(each.brief for each in group):
            with suppress(Exception):  # It comes again below, and is told to whom it concerns.
                results = decide(self._writing, works)
                await loop.run_in_executor(self._thread, finish, self._writing)
                return results
        return await loop.run_in_executor(self._thread, commit, self._writing, works)

    def _publish(self, written: Sequence[Written]) -> None:
        self._feed.publish([event for each in written for event in each.events])
