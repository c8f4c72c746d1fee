"""Tokens in the SQLite file, written by the same thread as all else."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Final

from services.registry.sqlite_tenants import PART, Once, Run
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

_COLUMNS: Final = ", ".join(Token._fields)
_PLACES: Final = ", ".join("?" * len(Token._fields))
_OF_TOKEN: Final = ", ".join(f"t.{column}" for column in Token._fields)
_GONE: Final = ", ".join(map(str, GONE))
_LIVES: Final = (
    "t.revoke_time = 0 AND t.expire_time > ? AND (t.workspace_uid = '' OR EXISTS"  # noqa: S608 - numbers of ours.
    " (SELECT 1 FROM environment e WHERE e.uid = t.workspace_uid AND e.tenant = t.tenant"
    " AND e.state NOT IN (" + _GONE + ")))"
)
"""Whether the token `t` is valid at a time."""
_VALID: Final = (
    f"SELECT {_OF_TOKEN} FROM token_hash h JOIN token t"  # noqa: S608 - no data in it.
    f" ON t.tenant = h.tenant AND t.id = h.id WHERE h.hash = ? AND {_LIVES}"
)


class SqliteTokens:
    """See `Tokens`."""

    def __init__(self, reading: sqlite3.Connection, run: Run, once: Once, now: Clock) -> None:
        self._reading = reading
        self._run = run
        self._once = once
        self._now = now

    async def create(self, draft: Draft, request: RequestId | None = None) -> bytes:
        def work(db: sqlite3.Connection) -> bytes:
            answer = self._once(db, request, lambda now: _create(db, draft, now))
            _keep_hash(db, draft, made_at(answer), self._now())
            return answer

        return await self._run(work)

    async def change(
        self, tenant: str, id_: str, change: TokenChange, request: RequestId | None = None
    ) -> bytes:
        def work(db: sqlite3.Connection) -> bytes:
            return self._once(db, request, lambda now: _change(db, tenant, id_, change, now))

        return await self._run(work)

    async def page(self, tenant: str, after: str, limit: int, *, ended: bool) -> list[Token]:
        values: list[Any] = [tenant, after]
        living = ""
        if not ended:
            living = f" AND {_LIVES}"
            values.append(self._now())
        rows = self._reading.execute(
            f"SELECT {_OF_TOKEN} FROM token t WHERE t.tenant = ? AND t.id > ?{living}"  # noqa: S608
            " ORDER BY t.id LIMIT ?",
            (*values, limit),
        )
        return [Token(*row) for row in rows.fetchall()]

    async def valid(self, hashes: Sequence[bytes]) -> list[Valid]:
        now = self._now()
        found: list[Valid] = []
        for each in hashes:
            with closing(self._reading.execute(_VALID, (each, now))) as rows:
                for row in rows:
                    token = Token(*row)
                    found.append(Valid(each, token, token.expire_time - now))
        return found


def _create(db: sqlite3.Connection, draft: Draft, now: int) -> bytes:
    token, answer = created(draft, _beside(db, draft.token, now), now)
    db.execute(f"INSERT INTO token ({_COLUMNS}) VALUES ({_PLACES})", token)  # noqa: S608
    return answer


def _beside(db: sqlite3.Connection, token: Token, now: int) -> Beside:
    (count,) = db.execute(
        f"SELECT count(*) FROM token t WHERE t.tenant = ? AND {_LIVES}",  # noqa: S608
        (token.tenant, now),
    ).fetchone()
    there = db.execute(
        "SELECT state FROM environment WHERE uid = ? AND tenant = ? AND name = ?",
        (token.workspace_uid, token.tenant, token.workspace),
    ).fetchone()
    return Beside(
        taken=_find(db, token.tenant, token.id) is not None,
        valid=count,
        workspace=there is not None and there[0] not in GONE,
    )


def _find(db: sqlite3.Connection, tenant: str, id_: str) -> Token | None:
    row = db.execute(
        f"SELECT {_COLUMNS} FROM token WHERE tenant = ? AND id = ?",  # noqa: S608
        (tenant, id_),
    ).fetchone()
    return Token(*row) if row else None


def _keep_hash(db: sqlite3.Connection, draft: Draft, made: int, now: int) -> None:
    key = draft.token.tenant, draft.token.id
    db.execute(
        "INSERT INTO token_hash (hash, tenant, id, time) SELECT ?, tenant, id, ? FROM token"
        " WHERE tenant = ? AND id = ? AND create_time = ? AND revoke_time = 0"
        " ON CONFLICT DO NOTHING",
        (draft.hash, now, *key, made),
    )
    db.execute(
        "DELETE FROM token_hash WHERE hash IN (SELECT hash FROM token_hash"
        " WHERE tenant = ? AND id = ? ORDER BY time DESC, rowid DESC LIMIT -1 OFFSET ?)",
        (*key, MOST_HASHES),
    )


def _change(db: sqlite3.Connection, tenant: str, id_: str, change: TokenChange, now: int) -> bytes:
    current = _find(db, tenant, id_)
    wanted, answer = change(current, now)
    if wanted != current:
        db.execute(
            "UPDATE token SET revoke_time = ? WHERE tenant = ? AND id = ?",
            (wanted.revoke_time, tenant, id_),
        )
    if wanted.revoke_time:
        db.execute("DELETE FROM token_hash WHERE tenant = ? AND id = ?", (tenant, id_))
    return answer


def sweep_tokens(db: sqlite3.Connection, now: int, before: int) -> int:
    """Delete a bounded number of tokens that ended before then. A share whose workspace is gone
    ends now."""
    lost = db.execute(
        "UPDATE token SET revoke_time = ? WHERE rowid IN (SELECT t.rowid FROM token t"
        " WHERE t.workspace_uid != '' AND t.revoke_time = 0 AND NOT EXISTS"
        " (SELECT 1 FROM environment e WHERE e.uid = t.workspace_uid) LIMIT ?)"
        " RETURNING tenant, id",
        (now, PART),
    ).fetchall()
    gone = db.execute(
        "DELETE FROM token WHERE rowid IN (SELECT rowid FROM token WHERE expire_time < ?"
        " OR (revoke_time > 0 AND revoke_time < ?) LIMIT ?) RETURNING tenant, id",
        (before, before, PART),
    ).fetchall()
    db.executemany("DELETE FROM token_hash WHERE tenant = ? AND id = ?", lost + gone)
    return len(lost) + len(gone)
