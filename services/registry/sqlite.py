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
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Self

from servicekit.errors import ServiceError
from services.registry.database import connect, lock
from services.registry.errors import (
    EnvironmentNotFound,
    RequestIdReused,
    WatcherTooSlow,
)
from services.registry.feed import Event, Feed
from services.registry.migrate import migrate
from services.registry.retention import Retention, ns, sweep
from services.registry.selecting import PLACEHOLDER, statement
from services.registry.store import (
    BY_NAME,
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
_KEY_BYTES: Final = 32
_SNAPSHOT_PAGE: Final = 256
_SNAPSHOT_LIMIT: Final = 30.0


class _Written(NamedTuple):
    response: bytes
    events: Sequence[Event] = ()


class SqliteStore:
    """See `Store`. One process at a time has the file; a second one is refused."""

    def __init__(
        self,
        writing: sqlite3.Connection,
        reading: sqlite3.Connection,
        *,
        connect: Callable[[], sqlite3.Connection],
        now: Clock,
        retention: Retention,
    ) -> None:
        self._reading = reading
        self._connect = connect
        self._now = now
        self._retention = retention
        (latest,) = reading.execute("SELECT latest FROM counter").fetchone()
        self._feed = Feed(latest)
        self._writer = Writer(writing, self._publish)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        *,
        now: Clock = time.time_ns,
        retention: Retention | None = None,
        lock_wait: float = _LOCK_WAIT,
    ) -> AsyncIterator[Self]:
        """Make the file if absent and bring it to the newest schema.

        Raises `StartError` when another process has it or it is too new.
        """
        reconnect = partial(connect, path)
        async with AsyncExitStack() as stack:
            taken = await asyncio.to_thread(lock, path, lock_wait)
            stack.callback(os.close, taken)
            writing = stack.enter_context(closing(reconnect()))
            await asyncio.to_thread(migrate, writing)
            reading = stack.enter_context(closing(reconnect()))
            reading.execute("PRAGMA query_only = ON")
            store = cls(
                writing, reading, connect=reconnect, now=now, retention=retention or Retention()
            )
            stack.push_async_callback(store._writer.close)
            yield store

    @property
    def feed(self) -> Feed:
        return self._feed

    @property
    def commits(self) -> int:
        """How often the disk was waited for."""
        return self._writer.commits

    async def write(self, key: Key, change: Change, request: RequestId | None = None) -> bytes:
        written = await self._writer.run(partial(self._write, key, change, request))
        return written.response

    def _write(
        self, key: Key, change: Change, request: RequestId | None, db: sqlite3.Connection
    ) -> _Written:
        now = self._now()
        if request and (known := self._answered(db, request, now)) is not None:
            return _Written(known)
        response, event = _apply(db, key, change, now)
        if request:
            _answer(db, request, now, response)
        return _Written(response, [event] if event else ())

    async def write_all(
        self,
        writes: Sequence[Write],
        answer: Callable[[Sequence[bytes | ServiceError]], bytes],
        request: RequestId | None = None,
    ) -> bytes:
        work = partial(self._write_all, writes, answer, request)
        return (await self._writer.run(work)).response

    def _write_all(
        self,
        writes: Sequence[Write],
        answer: Callable[[Sequence[bytes | ServiceError]], bytes],
        request: RequestId | None,
        db: sqlite3.Connection,
    ) -> _Written:
        now = self._now()
        if request and (known := self._answered(db, request, now)) is not None:
            return _Written(known)
        results: list[bytes | ServiceError] = []
        events: list[Event] = []
        for key, change in writes:
            try:
                response, event = _apply(db, key, change, now)
            except ServiceError as error:  # Raised by the change, before anything was written.
                results.append(error)
                continue
            results.append(response)
            if event:
                events.append(event)
        response = answer(results)
        if request:
            _answer(db, request, now, response)
        return _Written(response, events)

    def _answered(self, db: sqlite3.Connection, request: RequestId, now: int) -> bytes | None:
        row = db.execute(
            "SELECT digest, response FROM request WHERE tenant = ? AND principal = ?"
            " AND rpc = ? AND request_id = ? AND time > ?",
            (*request[:4], now - ns(self._retention.requests_age)),
        ).fetchone()
        if row is None:
            return None
        digest, response = row
        if digest != request.digest:
            raise RequestIdReused(
                "the request id was used for other content", request_id=request.request_id
            )
        return bytes(response)

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
            "SELECT change.revision, change.tenant, change.name, change.uid, change.document,"
            " change.previous, earlier.document"
            " FROM change LEFT JOIN change AS earlier ON earlier.revision = change.previous"
            " WHERE change.revision > ? ORDER BY change.revision LIMIT ?",
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
        counts: list[int] = []

        def work(db: sqlite3.Connection) -> _Written:
            counts.append(sweep(db, self._now(), self._retention))
            return _Written(b"")

        await self._writer.run(work)
        return sum(counts)

    async def secret(self, name: str) -> bytes:
        """A key that is made once and never leaves the database."""

        def work(db: sqlite3.Connection) -> _Written:
            new = (name, secrets.token_bytes(_KEY_BYTES))
            db.execute("INSERT INTO secret VALUES (?, ?) ON CONFLICT DO NOTHING", new)
            row = db.execute("SELECT value FROM secret WHERE name = ?", (name,)).fetchone()
            return _Written(bytes(row[0]))

        return (await self._writer.run(work)).response

    def _publish(self, written: Sequence[_Written]) -> None:
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


def _apply(
    db: sqlite3.Connection, key: Key, change: Change, now: int
) -> tuple[bytes, Event | None]:
    """Run one change on what is stored. What it raises, it raises before anything is written."""
    current = _find(db, key)
    (latest,) = db.execute("SELECT latest FROM counter").fetchone()
    outcome = change(current, latest + 1)
    event = _keep(db, key, current, outcome.put, latest + 1, remove=outcome.remove, now=now)
    return outcome.response, event


def _answer(db: sqlite3.Connection, request: RequestId, now: int, response: bytes) -> None:
    """Keep it for when the same request comes again."""
    db.execute(
        "INSERT OR REPLACE INTO request VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*request[:4], now, request.digest, response),
    )


def _keep(
    db: sqlite3.Connection,
    key: Key,
    current: Record | None,
    put: Record | None,
    revision: int,
    *,
    remove: bool,
    now: int,
) -> Event | None:
    """Write what a change decided, and its place in the history."""
    previous, before = (current.revision, current.document) if current else (0, None)
    if put:
        db.execute(_PUT, put)
        event = Event(revision, *put[:3], put.document, previous, before)
    elif remove and current:
        db.execute("DELETE FROM environment WHERE tenant = ? AND name = ?", key)
        event = Event(revision, *current[:3], None, previous, before)
    else:
        return None
    db.execute(
        "INSERT INTO change (revision, time, tenant, name, uid, document, previous)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (revision, now, event.tenant, event.name, event.uid, event.document, previous),
    )
    db.execute("UPDATE counter SET latest = ?", (revision,))
    return event
