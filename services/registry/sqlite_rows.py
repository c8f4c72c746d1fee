"""The rows of environments, of their changes and of requests in the SQLite file."""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from servicekit.quota import Limits
from services.registry.database import Connection
from services.registry.feed import Event
from services.registry.sqlite_tenants import count
from services.registry.store import Key, Page, Record, RequestId, Write
from services.registry.written import event

COLUMNS: Final = ", ".join(Record._fields)
_PUT: Final = (
    f"INSERT INTO environment ({COLUMNS}) VALUES ({', '.join('?' * len(Record._fields))})"  # noqa: S608
    " ON CONFLICT (tenant, name) DO UPDATE SET "
    # Not what never changes: naming it would write its index each time.
    + ", ".join(
        f"{column} = excluded.{column}"
        for column in Record._fields
        if column not in ("tenant", "name", "uid", "create_time")
    )
)


def find(db: sqlite3.Connection, key: Key) -> Record | None:
    """What is stored of it."""
    row = db.execute(
        f"SELECT {COLUMNS} FROM environment WHERE tenant = ? AND name = ?",  # noqa: S608
        key,
    ).fetchone()
    return row and Record(*row)


def page_of(rows: Iterable[Sequence[Any]], limit: int, max_bytes: int) -> Page:
    """As many of the rows as a page has; one more than that is read."""
    records: list[Record] = []
    for row in rows:
        record = Record(*row)
        max_bytes -= len(record.document)
        if records and (max_bytes < 0 or len(records) == limit):
            return Page(records, more=True)
        records.append(record)
    return Page(records, more=False)


def remember(db: sqlite3.Connection, request: RequestId, now: int, response: bytes) -> None:
    """Keep what a request was answered."""
    db.execute(
        "INSERT OR REPLACE INTO request VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*request[:4], now, request.digest, response),
    )


def apply(db: Connection, now: int, limits: Limits, write: Write) -> tuple[bytes, Event | None]:
    """Run one change on what is stored. What it raises, it raises before anything is written."""
    current = find(db, write.key)
    revision = db.latest + 1
    outcome = write.change(current, revision)
    count(db, current, outcome, limits)
    told = event(outcome, current, revision)
    if told:
        _keep(db, outcome.put, told, now)
    return outcome.response, told


def _keep(db: Connection, put: Record | None, told: Event, now: int) -> None:
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
    db.latest = told.revision
