"""The quotas and the audit log in the SQLite file, written by the same thread as all else."""

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from typing import Any, Final, Protocol, TypeVar

from servicekit.quota import Limits
from services.registry.quotas import Correction, Quota, QuotaChange, admit, gained
from services.registry.store import Outcome, Record, RequestId
from services.registry.trail import LOOKED_AT, TOLD, Entry, Found, Place, Removed, Wanted, found

T = TypeVar("T")

PART: Final = 1000
_QUOTA: Final = ", ".join(Quota._fields)
_ENTRY: Final = ", ".join(Entry._fields)
_LAST: Final = Place(2**63 - 1, "~")


class Run(Protocol):
    """Runs work in the writer's thread, and returns when it is durable."""

    def __call__(self, work: Callable[[sqlite3.Connection], T]) -> Awaitable[T]: ...


class Once(Protocol):
    """Answers a request that came before as it was answered then."""

    def __call__(
        self, db: sqlite3.Connection, request: RequestId | None, work: Callable[[int], bytes]
    ) -> bytes: ...


def count(
    db: sqlite3.Connection, current: Record | None, outcome: Outcome, default: Limits
) -> None:
    """Count a write for its tenant. Raises `QuotaExceeded`; then it is not counted."""
    by = gained(current, outcome)
    record = outcome.put or current
    if not by or record is None:
        return
    if by > 0:
        known = db.execute(
            "SELECT counted, workspaces FROM quota WHERE tenant = ?", (record.tenant,)
        ).fetchone()
        counted, limit = known or (0, 0)
        admit(record.tenant, counted + by, limit, default)
    db.execute(
        "INSERT INTO quota (tenant, counted) VALUES (?, ?) ON CONFLICT (tenant)"
        " DO UPDATE SET counted = quota.counted + excluded.counted",
        (record.tenant, by),
    )


class SqliteQuotas:
    """See `Quotas`."""

    def __init__(self, reading: sqlite3.Connection, run: Run, once: Once) -> None:
        self._reading = reading
        self._run = run
        self._once = once

    async def get(self, tenant: str) -> Quota:
        return _quota(self._reading, tenant)

    async def update(
        self, tenant: str, change: QuotaChange, request: RequestId | None = None
    ) -> bytes:
        def work(db: sqlite3.Connection) -> bytes:
            return self._once(db, request, lambda now: _update(db, tenant, change, now))

        return await self._run(work)

    async def page(self, after: str, limit: int) -> list[Quota]:
        rows = self._reading.execute(
            f"SELECT {_QUOTA} FROM quota WHERE tenant > ? ORDER BY tenant LIMIT ?",  # noqa: S608
            (after, limit),
        )
        return [Quota(*row) for row in rows.fetchall()]

    async def recount(self, *, dry_run: bool) -> list[Correction]:
        def work(db: sqlite3.Connection) -> list[Correction]:
            wrong = _wrong(db)
            for each in () if dry_run else wrong:
                db.execute(
                    "INSERT INTO quota (tenant, counted) VALUES (?, ?)"
                    " ON CONFLICT (tenant) DO UPDATE SET counted = excluded.counted",
                    (each.tenant, each.found),
                )
            return wrong

        return await self._run(work)


def _quota(db: sqlite3.Connection, tenant: str) -> Quota:
    row = db.execute(f"SELECT {_QUOTA} FROM quota WHERE tenant = ?", (tenant,)).fetchone()  # noqa: S608
    return Quota(*row) if row else Quota(tenant)


def _update(db: sqlite3.Connection, tenant: str, change: QuotaChange, now: int) -> bytes:
    current = _quota(db, tenant)
    wanted, response = change(current, now)
    if wanted != current:
        changed = Quota._fields[2:]
        db.execute(
            f"INSERT INTO quota ({_QUOTA}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
            " ON CONFLICT (tenant) DO UPDATE SET "
            + ", ".join(f"{column} = excluded.{column}" for column in changed),
            wanted,
        )
    return response


def _wrong(db: sqlite3.Connection) -> list[Correction]:
    rows = db.execute(
        "SELECT quota.tenant, quota.counted, coalesce(sum(environment.counted), 0) AS found"
        " FROM quota LEFT JOIN environment ON environment.tenant = quota.tenant"
        " GROUP BY quota.tenant, quota.counted"
        " HAVING quota.counted <> coalesce(sum(environment.counted), 0)"
        " UNION ALL SELECT tenant, 0, sum(counted) FROM environment"
        " WHERE tenant NOT IN (SELECT tenant FROM quota) GROUP BY tenant HAVING sum(counted) > 0"
        " ORDER BY 1"
    )
    return [Correction(tenant=row[0], counted=row[1], found=row[2]) for row in rows.fetchall()]


def append(db: sqlite3.Connection, entries: Sequence[Entry]) -> int:
    """See `Trail.append`."""
    before = db.total_changes
    db.executemany(
        f"INSERT INTO audit ({_ENTRY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) {TOLD}",  # noqa: S608
        entries,
    )
    return db.total_changes - before


class SqliteTrail:
    """See `Trail`."""

    def __init__(self, reading: sqlite3.Connection, run: Run) -> None:
        self._reading = reading
        self._run = run

    async def append(self, entries: Sequence[Entry]) -> int:
        return await self._run(lambda db: append(db, entries))

    async def page(self, wanted: Wanted, below: Place | None, limit: int) -> Found:
        conditions = "tenant = ? AND (time, id) < (?, ?) AND time >= ?"
        values: list[Any] = [wanted.tenant, *(below or _LAST), wanted.start]
        if wanted.end:
            conditions += " AND time < ?"
            values.append(wanted.end)
        rows = self._reading.execute(
            f"SELECT {_ENTRY} FROM audit WHERE {conditions}"  # noqa: S608 - no data in it.
            " ORDER BY time DESC, id DESC LIMIT ?",
            (*values, LOOKED_AT + 1),
        )
        with closing(rows):
            return found(map(Entry._make, rows), wanted, limit)

    async def removed(self, tenant: str) -> Removed:
        row = self._reading.execute(
            "SELECT until, count FROM audit_swept WHERE tenant = ?", (tenant,)
        ).fetchone()
        return Removed(*row) if row else Removed()


def sweep_audit(db: sqlite3.Connection, before: int) -> int:
    """Delete a bounded number of entries older than `before`, oldest first, and count them for
    their tenants."""
    removed = db.execute(
        "DELETE FROM audit WHERE id IN"
        " (SELECT id FROM audit WHERE time < ? ORDER BY time LIMIT ?) RETURNING tenant, time + 1",
        (before, PART),
    ).fetchall()
    db.executemany(
        "INSERT INTO audit_swept (tenant, until, count) VALUES (?, ?, 1) ON CONFLICT (tenant)"
        " DO UPDATE SET until = max(until, excluded.until), count = count + 1",
        removed,
    )
    return len(removed)
