"""The quotas and the audit log in PostgreSQL."""

from collections.abc import Sequence
from typing import Any, Final

from services.registry.postgres.database import Connection, Database
from services.registry.quotas import Correction, Quota, QuotaChange
from services.registry.retention import PART, Retention, ns
from services.registry.store import Clock, RequestId
from services.registry.trail import LOOKED_AT, TOLD, Entry, Found, Place, Removed, Wanted, found
from services.registry.written import replayed

# Whoever writes anything of a tenant's has this lock: so does the counter of its workspaces.
LOCK: Final = "SELECT latest FROM counter FOR UPDATE"
NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000"
_QUOTA: Final = ", ".join(Quota._fields)
_ENTRY: Final = ", ".join(Entry._fields)
_SET: Final = ", ".join(f"{name} = excluded.{name}" for name in Quota._fields[2:])
_UPDATE: Final = (
    f"INSERT INTO quota ({_QUOTA}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"  # noqa: S608
    f" ON CONFLICT (tenant) DO UPDATE SET {_SET}"
)
_WRONG: Final = """
    SELECT coalesce(q.tenant, e.tenant), coalesce(q.counted, 0), coalesce(e.found, 0)
    FROM quota q FULL JOIN
    (SELECT tenant, sum(counted)::bigint AS found FROM environment GROUP BY tenant) e
    ON q.tenant = e.tenant
    WHERE coalesce(q.counted, 0) <> coalesce(e.found, 0) ORDER BY 1
"""
_CORRECT: Final = (
    "INSERT INTO quota (tenant, counted) VALUES ($1, $2)"
    " ON CONFLICT (tenant) DO UPDATE SET counted = excluded.counted"
)
ANSWERED: Final = (
    "SELECT digest, response FROM request WHERE tenant = $1 AND principal = $2 AND rpc = $3"
    " AND request_id = $4 AND time > $5"
)
REMEMBER: Final = (
    "INSERT INTO request (tenant, principal, rpc, request_id, time, digest, response)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7)"
    " ON CONFLICT (tenant, principal, rpc, request_id) DO UPDATE SET"
    " time = excluded.time, digest = excluded.digest, response = excluded.response"
)
_APPEND: Final = (
    f"INSERT INTO audit ({_ENTRY}) SELECT * FROM unnest($1::text[], $2::text[],"  # noqa: S608
    " $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[])"
    f" {TOLD}"
)
_SWEEP: Final = """
    WITH gone AS (
        DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE time < $1 ORDER BY time LIMIT $2)
        RETURNING tenant, time
    ), counted AS (
        INSERT INTO audit_swept AS swept (tenant, until, count)
        SELECT tenant, max(time) + 1, count(*) FROM gone GROUP BY tenant
        ON CONFLICT (tenant) DO UPDATE SET
        until = greatest(swept.until, excluded.until), count = swept.count + excluded.count
    )
    SELECT count(*) FROM gone
"""
_LAST: Final = Place(2**63 - 1, "~")


class PostgresQuotas:
    """See `Quotas`."""

    def __init__(self, database: Database, now: Clock | None, retention: Retention) -> None:
        self._database = database
        self._clock = now
        self._retention = retention

    async def get(self, tenant: str) -> Quota:
        return await self._database.read(lambda db: _quota(db, tenant))

    async def update(
        self, tenant: str, change: QuotaChange, request: RequestId | None = None
    ) -> bytes:
        async def work(db: Connection) -> bytes:
            await db.execute(LOCK)
            now = self._clock() if self._clock else await db.fetchval(f"SELECT {NOW}")
            since = now - ns(self._retention.requests_age)
            if request and (row := await db.fetchrow(ANSWERED, *request[:4], since)):
                return replayed(request, *row)
            current = await _quota(db, tenant)
            wanted, response = change(current, now)
            if wanted != current:
                await db.execute(_UPDATE, *wanted)
            if request:
                await db.execute(REMEMBER, *request[:4], now, request.digest, response)
            return response

        return await self._database.write(work, again=request is not None)

    async def page(self, after: str, limit: int) -> list[Quota]:
        sql = f"SELECT {_QUOTA} FROM quota WHERE tenant > $1 ORDER BY tenant LIMIT $2"  # noqa: S608
        rows = await self._database.read(lambda db: db.fetch(sql, after, limit))
        return [Quota(*row) for row in rows]

    async def recount(self, *, dry_run: bool) -> list[Correction]:
        async def work(db: Connection) -> list[Correction]:
            await db.execute(LOCK)
            rows = await db.fetch(_WRONG)
            wrong = [Correction(tenant=t, counted=c, found=f) for t, c, f in rows]
            for each in () if dry_run else wrong:
                await db.execute(_CORRECT, each.tenant, each.found)
            return wrong

        return await self._database.write(work, again=dry_run)


async def _quota(db: Connection, tenant: str) -> Quota:
    row = await db.fetchrow(f"SELECT {_QUOTA} FROM quota WHERE tenant = $1", tenant)  # noqa: S608
    return Quota(*row) if row else Quota(tenant)


class PostgresTrail:
    """See `Trail`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, entries: Sequence[Entry]) -> int:
        columns = [list(column) for column in zip(*entries, strict=True)]
        status = await self._database.read(lambda db: db.execute(_APPEND, *columns))
        return int(status.split()[2])

    async def page(self, wanted: Wanted, below: Place | None, limit: int) -> Found:
        conditions = "tenant = $1 AND (time, id) < ($2, $3) AND time >= $4"
        values: list[Any] = [wanted.tenant, *(below or _LAST), wanted.start]
        if wanted.end:
            conditions += " AND time < $6"
        most = LOOKED_AT + 1 if wanted.selects else limit + 1
        values.append(most)
        if wanted.end:
            values.append(wanted.end)
        sql = (
            f"SELECT {_ENTRY} FROM audit WHERE {conditions}"  # noqa: S608 - no data in it.
            " ORDER BY time DESC, id DESC LIMIT $5"
        )
        rows = await self._database.read(lambda db: db.fetch(sql, *values))
        return found((Entry(*row) for row in rows), wanted, limit)

    async def removed(self, tenant: str) -> Removed:
        sql = "SELECT until, count FROM audit_swept WHERE tenant = $1"
        row = await self._database.read(lambda db: db.fetchrow(sql, tenant))
        return Removed(*row) if row else Removed()


async def sweep_audit(db: Connection, before: int) -> int:
    """As in SQLite. In the caller's transaction."""
    removed: int = await db.fetchval(_SWEEP, before, PART)
    return removed
