"""Tokens in PostgreSQL."""

from collections.abc import Sequence
from typing import Any, Final

from services.registry.postgres.database import Connection, Database
from services.registry.postgres.tenants import ANSWERED, LOCK, NOW, REMEMBER
from services.registry.retention import PART, Retention, ns
from services.registry.store import Clock, RequestId
from services.registry.tokens import (
    GONE,
    MOST_HASHES,
    Beside,
    Draft,
    Token,
    TokenChange,
    Valid,
    created,
    made_at,
)
from services.registry.written import replayed

_COLUMNS: Final = ", ".join(Token._fields)
_PLACES: Final = ", ".join(f"${number}" for number in range(1, len(Token._fields) + 1))
_OF_TOKEN: Final = ", ".join(f"t.{column}" for column in Token._fields)
_GONE: Final = ", ".join(map(str, GONE))
_LIVES: Final = (
    "t.revoke_time = 0 AND t.expire_time > {} AND (t.workspace_uid = '' OR EXISTS"  # noqa: S608 - numbers of ours.
    " (SELECT 1 FROM environment e WHERE e.uid = t.workspace_uid AND e.tenant = t.tenant"
    " AND e.state NOT IN (" + _GONE + ")))"
)
"""Whether the token `t` is valid at a time."""
_FIND: Final = f"SELECT {_COLUMNS} FROM token WHERE tenant = $1 AND id = $2"  # noqa: S608
_INSERT: Final = f"INSERT INTO token ({_COLUMNS}) VALUES ({_PLACES})"  # noqa: S608
_COUNT: Final = f"SELECT count(*) FROM token t WHERE t.tenant = $1 AND {_LIVES.format('$2')}"  # noqa: S608
_STATE: Final = "SELECT state FROM environment WHERE uid = $1 AND tenant = $2 AND name = $3"
_VALID: Final = (
    f"SELECT h.hash, now.ns, {_OF_TOKEN}"  # noqa: S608 - no data in it.
    f" FROM (SELECT coalesce($2::bigint, {NOW}) AS ns) now, token_hash h"
    " JOIN token t ON t.tenant = h.tenant AND t.id = h.id"
    f" WHERE h.hash = ANY($1::bytea[]) AND {_LIVES.format('now.ns')}"
)
_KEEP_HASH: Final = (
    "INSERT INTO token_hash (hash, tenant, id, time) SELECT $1, tenant, id, $2 FROM token"
    " WHERE tenant = $3 AND id = $4 AND create_time = $5 AND revoke_time = 0"
    " ON CONFLICT DO NOTHING"
)
_DROP_HASHES: Final = (
    "DELETE FROM token_hash WHERE hash IN (SELECT hash FROM token_hash"
    " WHERE tenant = $1 AND id = $2 ORDER BY time DESC, hash OFFSET $3)"
)


class PostgresTokens:
    """See `Tokens`."""

    def __init__(self, database: Database, now: Clock | None, retention: Retention) -> None:
        self._database = database
        self._clock = now
        self._retention = retention

    async def create(self, draft: Draft, request: RequestId | None = None) -> bytes:
        async def work(db: Connection) -> bytes:
            now = await self._locked(db)
            answer = await self._answered(db, request, now)
            if answer is None:
                beside = await _beside(db, draft.token, now)
                token, answer = created(draft, beside, now)
                await db.execute(_INSERT, *token)
                await _remember(db, request, now, answer)
            key = draft.token.tenant, draft.token.id
            await db.execute(_KEEP_HASH, draft.hash, now, *key, made_at(answer))
            await db.execute(_DROP_HASHES, *key, MOST_HASHES)
            return answer

        return await self._database.write(work, again=request is not None)

    async def change(
        self, tenant: str, id_: str, change: TokenChange, request: RequestId | None = None
    ) -> bytes:
        async def work(db: Connection) -> bytes:
            now = await self._locked(db)
            answer = await self._answered(db, request, now)
            if answer is not None:
                return answer
            row = await db.fetchrow(_FIND, tenant, id_)
            wanted, answer = change(Token(*row) if row else None, now)
            await db.execute(
                "UPDATE token SET revoke_time = $3 WHERE tenant = $1 AND id = $2",
                tenant,
                id_,
                wanted.revoke_time,
            )
            if wanted.revoke_time:
                await db.execute(
                    "DELETE FROM token_hash WHERE tenant = $1 AND id = $2", tenant, id_
                )
            await _remember(db, request, now, answer)
            return answer

        return await self._database.write(work, again=request is not None)

    async def page(self, tenant: str, after: str, limit: int, *, ended: bool) -> list[Token]:
        values: list[Any] = [tenant, after, limit]
        living = ""
        if not ended:
            living = f" AND {_LIVES.format(f'coalesce($4::bigint, {NOW})')}"
            values.append(self._clock() if self._clock else None)
        sql = (
            f"SELECT {_OF_TOKEN} FROM token t WHERE t.tenant = $1 AND t.id > $2{living}"  # noqa: S608
            " ORDER BY t.id LIMIT $3"
        )
        rows = await self._database.read(lambda db: db.fetch(sql, *values))
        return [Token(*row) for row in rows]

    async def valid(self, hashes: Sequence[bytes]) -> list[Valid]:
        now = self._clock() if self._clock else None
        rows = await self._database.read(lambda db: db.fetch(_VALID, list(hashes), now))
        found: list[Valid] = []
        for hash_, at, *columns in rows:
            token = Token(*columns)
            found.append(Valid(bytes(hash_), token, token.expire_time - at))
        return found

    async def _locked(self, db: Connection) -> int:
        """Take the lock of all writers. Returns the time."""
        await db.execute(LOCK)
        now: int = self._clock() if self._clock else await db.fetchval(f"SELECT {NOW}")
        return now

    async def _answered(self, db: Connection, request: RequestId | None, now: int) -> bytes | None:
        since = now - ns(self._retention.requests_age)
        if request and (row := await db.fetchrow(ANSWERED, *request[:4], since)):
            return replayed(request, *row)
        return None


async def _remember(db: Connection, request: RequestId | None, now: int, answer: bytes) -> None:
    if request:
        await db.execute(REMEMBER, *request[:4], now, request.digest, answer)


async def _beside(db: Connection, token: Token, now: int) -> Beside:
    state = await db.fetchval(_STATE, token.workspace_uid, token.tenant, token.workspace)
    return Beside(
        taken=await db.fetchrow(_FIND, token.tenant, token.id) is not None,
        valid=await db.fetchval(_COUNT, token.tenant, now),
        workspace=state is not None and state not in GONE,
    )


async def sweep_tokens(db: Connection, now: int, before: int) -> int:
    """As in SQLite. In the caller's transaction."""
    lost = await db.fetch(
        "UPDATE token SET revoke_time = $1 WHERE ctid IN (SELECT t.ctid FROM token t"
        " WHERE t.workspace_uid != '' AND t.revoke_time = 0 AND NOT EXISTS"
        " (SELECT 1 FROM environment e WHERE e.uid = t.workspace_uid) LIMIT $2)"
        " RETURNING tenant, id",
        now,
        PART,
    )
    gone = await db.fetch(
        "DELETE FROM token WHERE ctid IN (SELECT ctid FROM token WHERE expire_time < $1"
        " OR (revoke_time > 0 AND revoke_time < $1) LIMIT $2) RETURNING tenant, id",
        before,
        PART,
    )
    rows = [*lost, *gone]
    await db.executemany(
        "DELETE FROM token_hash WHERE tenant = $1 AND id = $2", [tuple(row) for row in rows]
    )
    return len(rows)
