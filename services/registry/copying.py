"""Copies of a database: taken while it is written to, and made ready to be gone on from.

A copy has no history: whoever followed the original gets REVISION_COMPACTED, and a new snapshot.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from cove.registry.v1 import registry_pb2 as pb
from services.registry.database import migrate
from services.registry.store import Record

_COLUMNS: Final = ", ".join(Record._fields)
_PLACES: Final = ", ".join("?" * len(Record._fields))
_LEAVING: Final = (pb.Environment.STATE_DELETING, pb.Environment.STATE_DELETED)


class Mark(NamedTuple):
    """As much of an environment as tells whether it is still what it was."""

    uid: str
    state: int


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy is of."""

    schema: int
    revision: int
    environments: int


def copy(source: Path, target: Path) -> None:
    """Make `target` a copy of the database as it is at one moment; nobody waits for that.

    Its history is left out. Raises OSError, `sqlite3.Error`; then `target` may be there in part.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with closing(reading(source)) as live, closing(writing(target)) as db:
        live.backup(db)
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("DELETE FROM change")
        db.execute("UPDATE counter SET compacted = latest")
        db.execute("VACUUM")


def reading(path: Path) -> sqlite3.Connection:
    """A connection that writes nothing, beside a registry that runs or without one."""
    db = sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True, isolation_level=None)
    db.execute("PRAGMA busy_timeout = 5000")
    db.execute("PRAGMA query_only = ON")
    return db


def marks(path: Path) -> dict[str, Mark]:
    """Of all environments, by uid."""
    with closing(reading(path)) as db:
        return {uid: Mark(uid, state) for uid, state in db.execute(f"SELECT {_MARK}")}


def settle(target: Path, source: Path) -> list[str]:
    """Take over from the live database who has been deleted since the copy was made, and which
    tokens were revoked.

    Returns the uids of those that are gone: nothing of theirs is needed.
    """
    now, gone = marks(source), []
    with closing(writing(target)) as db, closing(reading(source)) as live:
        db.execute("BEGIN IMMEDIATE")
        for uid, state in db.execute(f"SELECT {_MARK}").fetchall():
            if uid not in now:
                db.execute("DELETE FROM environment WHERE uid = ?", (uid,))
                gone.append(uid)
            elif now[uid].state != state and now[uid].state in _LEAVING:
                _replace(db, live, uid)
        _revoke(db, live)
        _count(db, 0)
        db.execute(RECOUNT)
        db.execute("COMMIT")
    return gone


def describe(path: Path) -> Copied:
    """Raises `sqlite3.Error` for what is no database of a registry."""
    with closing(reading(path)) as db:
        (schema,) = db.execute("SELECT max(version) FROM migration").fetchone()
        (revision,) = db.execute("SELECT latest FROM counter").fetchone()
        (count,) = db.execute("SELECT count(*) FROM environment").fetchone()
        return Copied(schema, revision, count)


def renew(path: Path, later_than: int) -> int:
    """Make a copy ready to be gone on from; returns its new revision, above `later_than`.

    Revisions between that of the copy and the new one were given out by the life that is left
    behind: who resumes from one gets REVISION_COMPACTED. So fencing tokens, which are revisions,
    are larger than any that a tool has seen. Leases are over, and their tokens void. Brings the
    database to the newest schema; raises `StartError` when it is newer.
    """
    with closing(writing(path)) as db:
        migrate(db)
        db.execute("BEGIN IMMEDIATE")
        (latest,) = db.execute("SELECT latest FROM counter").fetchone()
        revision = max(int(latest), later_than) + 1
        held = db.execute(
            f"SELECT {_COLUMNS} FROM environment WHERE operation != ?",  # noqa: S608
            (pb.Environment.OPERATION_NONE,),
        )
        for row in held.fetchall():
            revision += 1
            _void(db, Record(*row), revision)
        db.execute("DELETE FROM change")
        db.execute("UPDATE counter SET latest = ?, compacted = ?", (revision, revision))
        # Answers of these have tokens that are void.
        db.execute("DELETE FROM request WHERE rpc = ?", (pb.ClaimOperationRequest.DESCRIPTOR.name,))
        db.execute("COMMIT")
        return revision


def environments(path: Path) -> Iterator[pb.Environment]:
    """All there are, one after the other."""
    with closing(reading(path)) as db:
        for (document,) in db.execute("SELECT document FROM environment ORDER BY uid"):
            yield pb.Environment.FromString(document)


_MARK: Final = "uid, state FROM environment"
RECOUNT: Final = """
    INSERT INTO quota (tenant, counted)
    SELECT tenant, sum(counted) FROM (
        SELECT tenant, counted FROM environment UNION ALL SELECT tenant, 0 FROM quota
    ) AS each GROUP BY tenant
    ON CONFLICT (tenant) DO UPDATE SET counted = excluded.counted
"""
"""Counts the workspaces of every tenant anew, in either store."""


def _void(db: sqlite3.Connection, record: Record, revision: int) -> None:
    """End a lease, as if it had run out: the operation is taken over by whoever comes first."""
    message = pb.Environment.FromString(record.document)
    message.fencing_token = message.revision = revision
    message.etag = f"{revision:x}"
    message.ClearField("lease_expire_time")
    db.execute(
        "UPDATE environment SET lease_start = 0, lease_end = 0, revision = ?, document = ?"
        " WHERE uid = ?",
        (revision, message.SerializeToString(), record.uid),
    )


def _replace(db: sqlite3.Connection, live: sqlite3.Connection, uid: str) -> None:
    row = live.execute(
        f"SELECT {_COLUMNS} FROM environment WHERE uid = ?",  # noqa: S608
        (uid,),
    ).fetchone()
    db.execute("DELETE FROM environment WHERE uid = ?", (uid,))
    if row:
        db.execute(f"INSERT INTO environment ({_COLUMNS}) VALUES ({_PLACES})", row)  # noqa: S608


def _revoke(db: sqlite3.Connection, live: sqlite3.Connection) -> None:
    """What was revoked stays so. A live database of before there were tokens has none."""
    if not live.execute("SELECT 1 FROM sqlite_schema WHERE name = 'token'").fetchone():
        return
    if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'token'").fetchone():
        return
    ended = live.execute("SELECT revoke_time, tenant, id FROM token WHERE revoke_time > 0")
    for revoke_time, *key in ended.fetchall():
        db.execute(
            "UPDATE token SET revoke_time = ? WHERE tenant = ? AND id = ?", (revoke_time, *key)
        )
        db.execute("DELETE FROM token_hash WHERE tenant = ? AND id = ?", key)


def _count(db: sqlite3.Connection, least: int) -> None:
    """The counter is never behind what was given out."""
    db.execute(
        "UPDATE counter SET latest = max(latest, ?,"
        " (SELECT coalesce(max(revision), 0) FROM environment))",
        (least,),
    )
    db.execute("UPDATE counter SET compacted = latest")


def writing(path: Path) -> sqlite3.Connection:
    """A connection that writes to a copy, which is there."""
    db = sqlite3.connect(f"file:{_quoted(path)}?mode=rw", uri=True, isolation_level=None)
    db.execute("PRAGMA synchronous = FULL")
    return db


def _quoted(path: Path) -> str:
    return os.fspath(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
