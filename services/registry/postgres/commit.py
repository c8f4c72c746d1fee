"""Commits groups of writes: one transaction each, under the lock that is the counter.

A group is read in three statements and kept in one, whatever its size: the way to the
database and back is what a write costs, not the work. The row of the counter is locked
first and by every writer of every registry, so that revisions are committed in their order.
"""

import time
from collections.abc import Sequence
from typing import Final

import asyncpg

from servicekit.quota import Limits
from services.registry.postgres.batch import Answer, Batch
from services.registry.postgres.database import Connection, Database, is_away, unavailable
from services.registry.quotas import Counts
from services.registry.retention import Retention, ns
from services.registry.store import Clock, Key, Record
from services.registry.trail import Entry
from services.registry.written import Job, Written

COLUMNS: Final = ", ".join(Record._fields)

NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000"

_LOCK: Final = "SELECT latest FROM counter FOR UPDATE"
# A statement of its own, after the lock: it sees what the holder before has committed.
_RECORDS: Final = f"""
    SELECT {NOW}, e.*
    FROM unnest($1::text[], $2::text[]) AS asked (tenant, name)
    LEFT JOIN (SELECT {COLUMNS} FROM environment) e
    ON e.tenant = asked.tenant AND e.name = asked.name
"""  # noqa: S608 - no data in it.
_ANSWERS: Final = """
    SELECT r.tenant, r.principal, r.rpc, r.request_id, r.digest, r.response
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
    AS asked (tenant, principal, rpc, request_id)
    JOIN request r USING (tenant, principal, rpc, request_id)
    WHERE r.time > $5
"""
_QUOTAS: Final = "SELECT tenant, counted, workspaces FROM quota WHERE tenant = ANY($1::text[])"
_KEEP: Final = f"""
    WITH gone AS (
        DELETE FROM environment e USING unnest($1::text[], $2::text[]) AS g (tenant, name)
        WHERE e.tenant = g.tenant AND e.name = g.name
    ), put AS (
        INSERT INTO environment ({COLUMNS})
        SELECT * FROM unnest($3::text[], $4::text[], $5::text[], $6::int[], $7::int[],
            $8::bigint[], $9::bigint[], $10::bigint[], $11::bytea[], $12::bigint[], $13::bigint[],
            $14::int[])
        ON CONFLICT (tenant, name) DO UPDATE SET
        {", ".join(f"{column} = excluded.{column}" for column in Record._fields[2:])}
    ), told AS (
        INSERT INTO change (revision, time, tenant, name, uid, document, previous)
        SELECT * FROM unnest($15::bigint[], $16::bigint[], $17::text[], $18::text[],
            $19::text[], $20::bytea[], $21::bigint[])
    ), answered AS (
        INSERT INTO request (tenant, principal, rpc, request_id, time, digest, response)
        SELECT * FROM unnest($22::text[], $23::text[], $24::text[], $25::text[],
            $26::bigint[], $27::bytea[], $28::bytea[])
        ON CONFLICT (tenant, principal, rpc, request_id) DO UPDATE SET
        time = excluded.time, digest = excluded.digest, response = excluded.response
    ), quotas AS (
        INSERT INTO quota (tenant, counted) SELECT * FROM unnest($29::text[], $30::bigint[])
        ON CONFLICT (tenant) DO UPDATE SET counted = excluded.counted
    ), trail AS (
        INSERT INTO audit ({", ".join(Entry._fields)})
        SELECT * FROM unnest($31::text[], $32::text[], $33::bigint[], $34::text[], $35::text[],
            $36::text[], $37::text[], $38::bytea[])
        ON CONFLICT (id) DO NOTHING
    ), counted AS (
        UPDATE counter SET latest = $39
    )
    SELECT pg_notify($40, ($39::bigint)::text)
"""  # noqa: S608 - no data in it.


class Committer:
    """Has one connection, and makes another when it is gone."""

    def __init__(
        self,
        database: Database,
        channel: str,
        *,
        now: Clock | None,
        retention: Retention,
        limits: Limits,
    ) -> None:
        self._limits = limits
        self._database = database
        self._channel = channel
        self._clock = now
        self._retention = retention
        self._db: Connection | None = None
        self._deciding = False
        self.now = now() if now else time.time_ns()

    async def commit(self, group: Sequence[Job]) -> Sequence[Written | Exception]:
        """See `Writer`.

        A group that the database refuses for what is in it is committed one by one, so
        that the write which is to blame fails alone; from where the database is lost then, the
        rest has that as its end. Raises `DatabaseUnavailable` or `DiskFull` for all of it, after
        which nothing of it, or all, was done.
        """
        try:
            return await self._anew(group)
        except asyncpg.PostgresError as error:
            if is_away(error):
                raise unavailable(error) from error
            if len(group) == 1:
                return [error]
        except Exception as error:
            if is_away(error):
                raise unavailable(error) from error
            raise
        results: list[Written | Exception] = []
        try:
            for each in group:
                results += await self.commit([each])
        except Exception as error:  # What is done is done; no other is tried in vain.
            results += [error] * (len(group) - len(results))
        return results

    def close(self) -> None:
        if self._db:
            self._db.terminate()
        self._db = None

    async def _anew(self, group: Sequence[Job]) -> Sequence[Written | Exception]:
        """Commit, on a new connection if the old one turned out to be dead before its end."""
        old = self._db is not None
        self._deciding = True
        try:
            return await self._transaction(group)
        except Exception as error:
            held = isinstance(error, asyncpg.LockNotAvailableError)  # Nor is it longer waited for.
            if not (old and self._deciding and is_away(error)) or held:
                raise
        return await self._transaction(group)

    async def _transaction(self, group: Sequence[Job]) -> Sequence[Written | Exception]:
        try:
            if self._db is None:
                self._db = await self._database.connect("writer")
            return await self._decide(self._db, group)
        except BaseException:
            self.close()  # What it began ends with it.
            raise

    async def _decide(self, db: Connection, group: Sequence[Job]) -> Sequence[Written | Exception]:
        await db.execute("BEGIN")
        batch = await self._read(db, group)
        results = [batch.run(each) for each in group]
        if batch.empty:
            await db.execute("ROLLBACK")
            return results
        await db.execute(_KEEP, *batch.parameters(), self._channel)
        self._deciding = False  # From here on nobody knows, until there is an answer.
        if (answer := await db.execute("COMMIT")) != "COMMIT":
            raise asyncpg.InternalClientError(f"COMMIT was answered {answer}")
        return results

    async def _read(self, db: Connection, group: Sequence[Job]) -> Batch:
        latest = await db.fetchval(_LOCK)
        keys = list({write.key for job in group for write in job.writes})
        rows = await db.fetch(_RECORDS, [key.tenant for key in keys], [key.name for key in keys])
        self.now = self._clock() if self._clock else rows[0][0]
        found = [Record(*row[1:]) for row in rows if row[1] is not None]
        asked = [job.request for job in group if job.request]
        since = self.now - ns(self._retention.requests_age)
        known = (
            await db.fetch(_ANSWERS, *([each[part] for each in asked] for part in range(4)), since)
            if asked
            else []
        )
        tenants = list({key.tenant for key in keys})
        quotas = await db.fetch(_QUOTAS, tenants)
        return Batch(
            latest,
            self.now,
            {Key(record.tenant, record.name): record for record in found},
            {tuple(row[:4]): Answer(*row[4:]) for row in known},
            Counts({row[0]: (row[1], row[2]) for row in quotas}, self._limits),
        )
