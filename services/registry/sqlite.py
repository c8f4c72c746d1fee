"""Keeps environments in a SQLite file: one writer thread, readers beside it.

Reads run on the event loop: one takes some microseconds, less than handing it to a
thread would. Writers do not block them, as the file is in WAL mode.
"""

import asyncio
import os
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Final, Self, TypeAlias, TypeVar

from servicekit.quota import NONE, Limits
from servicekit.room import Room
from services.registry.database import commit, connect, lock, migrate
from services.registry.errors import EnvironmentNotFound, WatcherTooSlow
from services.registry.feed import Event, Feed
from services.registry.retention import Retention, ns, sweep
from services.registry.selecting import HISTORY, PLACEHOLDER, statement
from services.registry.sqlite_tenants import SqliteQuotas, SqliteTrail, count
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
from services.registry.writer import Writer
from services.registry.written import Job, Written, event, replayed, run

T = TypeVar("T")

_COLUMNS: Final = ", ".join(Record._fields)
_PUT: Final = (
    f"INSERT INTO environment ({_COLUMNS}) VALUES ({', '.join('?' * len(Record._fields))})"  # noqa: S608
    " ON CONFLICT (tenant, name) DO UPDATE SET "
    # Not what never changes: naming it would write its index each time.
    + ", ".join(
        f"{column} = excluded.{column}"
        for column in Record._fields
        if column not in ("tenant", "name", "uid", "create_time")
    )
)
_LOCK_WAIT: Final = 5.0
_ROOM: Final = 8 << 20
"""Enough for some thousand deletes on a full disk."""
_KEY_BYTES: Final = 32
_SNAPSHOT_PAGE: Final = 256
_SNAPSHOT_LIMIT: Final = 30.0

_Work: TypeAlias = Callable[[sqlite3.Connection], Written]


class SqliteStore:
    """See `Store`. One process at a time has the file; a second one is refused."""

    def __init__(
        self,
        writing: sqlite3.Connection,
        reading: sqlite3.Connection,
        *,
        room: Room,
        connect: Callable[[], sqlite3.Connection],
        now: Clock,
        retention: Retention,
        limits: Limits,
    ) -> None:
        self._reading = reading
        self._room = room
        self._connect = connect
        self._now = now
        self._retention = retention
        self._limits = limits
        self.quotas = SqliteQuotas(reading, self._run, self._once)
        self.trail = SqliteTrail(reading, self._run)
        (latest,) = reading.execute("SELECT latest FROM counter").fetchone()
        self._feed = Feed(latest)
        self._writing = writing
        self._thread = ThreadPoolExecutor(1, "writer")
        self._writer: Writer[_Work, Written] = Writer(self._commit, self._publish)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        *,
        now: Clock = time.time_ns,
        retention: Retention | None = None,
        limits: Limits = NONE,
        lock_wait: float = _LOCK_WAIT,
    ) -> AsyncIterator[Self]:
        """Make the file if absent and bring it to the newest schema.

        `limits` are those of a tenant that has none of its own.
        Raises `StartError` when another process has it or it is too new.
        """
        reconnect = partial(connect, path)
        async with AsyncExitStack() as stack:
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

    def now(self) -> int:
        return self._now()

    async def write(self, key: Key, change: Change, request: RequestId | None = None) -> bytes:
        return await self._done(Job([Write(key, change)], request))

    async def write_all(
        self, writes: Sequence[Write], answer: Answer, request: RequestId | None = None
    ) -> bytes:
        return await self._done(Job(writes, request, answer))

    async def _done(self, job: Job) -> bytes:
        return (await self._writer.run(partial(self._write, job))).response

    def _write(self, job: Job, db: sqlite3.Connection) -> Written:
        now = self._now()
        if job.request and (known := self._answered(db, job.request, now)) is not None:
            return Written(known)
        written = run(job, partial(_apply, db, now, self._limits))
        if job.request:
            _remember(db, job.request, now, written.response)
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
        _remember(db, request, now, response)
        return response

    def _answered(self, db: sqlite3.Connection, request: RequestId, now: int) -> bytes | None:
        row = db.execute(
            "SELECT digest, response FROM request WHERE tenant = ? AND principal = ?"
            " AND rpc = ? AND request_id = ? AND time > ?",
            (*request[:4], now - ns(self._retention.requests_age)),
        ).fetchone()
        return replayed(request, *row) if row else None

    async def get(self, key: Key) -> Record:
        if (record := _find(self._reading, key)) is None:
            raise EnvironmentNotFound("no such environment", name=key.name)
        return record

    async def exists(self, key: Key) -> bool:
        return _find(self._reading, key) is not None

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
        query, values = statement(_COLUMNS, tenant, after, states, order, limit + 1)
        rows = self._reading.execute(query.replace(PLACEHOLDER, "?"), values)
        records: list[Record] = []
        with closing(rows):
            for row in rows:
                record = Record(*row)
                max_bytes -= len(record.document)
                if records and (max_bytes < 0 or len(records) == limit):
                    return Page(records, more=True)
                records.append(record)
        return Page(records, more=False)

    async def span(self) -> Span:
        return Span(*self._reading.execute("SELECT compacted, latest FROM counter").fetchone())

    async def history(self, after: int, limit: int) -> list[Event]:
        rows = self._reading.execute(
            f"{HISTORY} WHERE c.revision > ? ORDER BY c.revision LIMIT ?",
            (after, limit),
        )
        return [Event(*row) for row in rows.fetchall()]

    @asynccontextmanager
    async def snapshot(
        self, tenant: str | None, *, limit: float = _SNAPSHOT_LIMIT
    ) -> AsyncIterator["SqliteSnapshot"]:
        """Holds the database at one revision, for at most `limit` seconds."""
        with closing(self._connect()) as db:
            # As long as it is held, the WAL cannot be reset: a reader who stalls
            # must not fill the disk.
            timer = asyncio.get_running_loop().call_later(limit, db.close)
            try:
                yield SqliteSnapshot(db, tenant)
            finally:
                timer.cancel()

    async def sweep(self) -> int:
        await asyncio.to_thread(self._room.keep)
        return await self._run(lambda db: sweep(db, self._now(), self._retention))

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something else than a write of an environment, in the thread that writes."""
        results: list[T] = []

        def job(db: sqlite3.Connection) -> Written:
            results.append(work(db))
            return Written(b"")

        await self._writer.run(job)
        return results[-1]

    async def secret(self, name: str) -> bytes:
        """A key that is made once and never leaves the database."""

        def work(db: sqlite3.Connection) -> Written:
            new = (name, secrets.token_bytes(_KEY_BYTES))
            db.execute("INSERT INTO secret VALUES (?, ?) ON CONFLICT DO NOTHING", new)
            row = db.execute("SELECT value FROM secret WHERE name = ?", (name,)).fetchone()
            return Written(bytes(row[0]))

        return (await self._writer.run(work)).response

    async def _commit(self, group: Sequence[_Work]) -> Sequence[Written | Exception]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, commit, self._writing, group)

    def _publish(self, written: Sequence[Written]) -> None:
        self._feed.publish([event for each in written for event in each.events])


class SqliteSnapshot:
    def __init__(self, db: sqlite3.Connection, tenant: str | None) -> None:
        db.execute("BEGIN")  # The first read fixes what all others see.
        (self.revision,) = db.execute("SELECT latest FROM counter").fetchone()
        self._db = db
        self._tenant = tenant

    async def page(self, after: Key | None) -> list[Record]:
        place = Place(*after) if after else None
        query, values = statement(_COLUMNS, self._tenant, place, (), BY_NAME, _SNAPSHOT_PAGE)
        try:
            rows = self._db.execute(query.replace(PLACEHOLDER, "?"), values)
            return [Record(*row) for row in rows.fetchall()]
        except sqlite3.ProgrammingError:  # Closed by the timer.
            raise WatcherTooSlow("the snapshot was read too slowly") from None


def _find(db: sqlite3.Connection, key: Key) -> Record | None:
    row = db.execute(
        f"SELECT {_COLUMNS} FROM environment WHERE tenant = ? AND name = ?",  # noqa: S608
        key,
    ).fetchone()
    return row and Record(*row)


def _remember(db: sqlite3.Connection, request: RequestId, now: int, response: bytes) -> None:
    db.execute(
        "INSERT OR REPLACE INTO request VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*request[:4], now, request.digest, response),
    )


def _apply(
    db: sqlite3.Connection, now: int, limits: Limits, write: Write
) -> tuple[bytes, Event | None]:
    """Run one change on what is stored. What it raises, it raises before anything is written."""
    current = _find(db, write.key)
    (latest,) = db.execute("SELECT latest FROM counter").fetchone()
    outcome = write.change(current, latest + 1)
    count(db, current, outcome, limits)
    told = event(outcome, current, latest + 1)
    if told:
        _keep(db, outcome.put, told, now)
    return outcome.response, told


def _keep(db: sqlite3.Connection, put: Record | None, told: Event, now: int) -> None:
    """Write what a change decided, and its place in the history."""
    if put:
        db.execute(_PUT, put)
    else:
        db.execute("DELETE FROM environment WHERE tenant = ? AND name = ?", told[1:3])
    db.execute(
        "INSERT INTO change (revision, time, tenant, name, uid, document, previous)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (told.revision, now, told.tenant, told.name, told.uid, told.document, told.previous),
    )
    db.execute("UPDATE counter SET latest = ?", (told.revision,))
