"""Looks whether a database agrees with itself, and mends it; and changes records by the rules.

What changes anything wants the registry to be stopped.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from cove.registry.v1 import registry_pb2 as pb
from services.registry.copying import RECOUNT, reading
from services.registry.database import connect
from services.registry.rules import Rules
from services.registry.store import Key, Record, Store

_COLUMNS: Final = ", ".join(Record._fields)
_MENDED: Final = ("state", "operation", "lease_end", "revision", "create_time")
"""Columns that the document has as well."""
_LONG: Final = 300

Statement: TypeAlias = tuple[str, *tuple[str | int, ...]]
"""SQL that both stores understand, with `?` where the values go that come after it."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Something in the database that cannot be."""

    kind: str
    subject: str
    found: str
    mend: tuple[Statement, ...] = ()
    """Run in a transaction; none: nothing but a backup helps."""


def examine(path: Path) -> Iterator[Disagreement]:
    """What is wrong with the database by itself. Raises `sqlite3.Error` when it is none."""
    with closing(reading(path)) as db:
        said = [row[0] for row in db.execute("PRAGMA integrity_check(10)")]
        if said != ["ok"]:
            yield Disagreement("registry-damaged", "registry.db", "; ".join(said)[:_LONG])
            return
        yield from _counter(db)
        yield from _quotas(db)
        yield from _tokens(db)
        for row in db.execute(f"SELECT {_COLUMNS} FROM environment ORDER BY uid"):  # noqa: S608
            yield from _document(Record(*row))


def mend(path: Path, statements: Sequence[Statement]) -> None:
    """Run these in one transaction. The registry has to be stopped."""
    with closing(connect(path)) as db:
        db.execute("BEGIN IMMEDIATE")
        for text, *values in statements:
            db.execute(text, values)
        db.execute("COMMIT")


async def mark_failed(store: Store, environment: pb.Environment, reason: str, message: str) -> None:
    """Move an environment to FAILED, as the registry would: watchers are told."""
    request = pb.UpdateEnvironmentStatusRequest(
        name=environment.name,
        state=pb.Environment.STATE_FAILED,
        failure=pb.Failure(reason=reason, message=message),
        release_operation=True,
    )
    change = partial(Rules(store.now).update_status, request)
    await store.write(Key(environment.tenant, environment.name), change)


async def forget(store: Store, environment: pb.Environment) -> None:
    """Remove a record, as the registry would; nothing stands behind it."""
    request = pb.DeregisterEnvironmentRequest(name=environment.name, uid=environment.uid)
    change = partial(Rules(store.now).deregister, request)
    await store.write(Key(environment.tenant, environment.name), change)


def _counter(db: sqlite3.Connection) -> Iterator[Disagreement]:
    latest, compacted = db.execute("SELECT latest, compacted FROM counter").fetchone()
    (written,) = db.execute("SELECT coalesce(max(revision), 0) FROM environment").fetchone()
    first, last, count = db.execute(
        "SELECT coalesce(min(revision), 0), coalesce(max(revision), 0), count(*) FROM change"
    ).fetchone()
    newest = max(written, last)
    if newest > latest:
        yield Disagreement(
            "registry-counter",
            "latest",
            f"{latest}, and there is revision {newest}",
            (("UPDATE counter SET latest = ? WHERE latest < ?", newest, newest),),
        )
    if count != max(latest, last) - compacted or (
        count and (first, last) != (compacted + 1, latest)
    ):
        yield Disagreement(
            "registry-history",
            "change",
            f"{count} changes from {first} to {last}, where there should be those after"
            f" {compacted} up to {latest}",
            # Who follows it gets a new snapshot: better than one that misses something.
            (("DELETE FROM change",), ("UPDATE counter SET compacted = latest",)),
        )


def _quotas(db: sqlite3.Connection) -> Iterator[Disagreement]:
    rows = db.execute(
        "SELECT tenant, sum(counted), sum(known) FROM ("
        " SELECT tenant, counted, 0 AS known FROM environment"
        " UNION ALL SELECT tenant, 0, counted FROM quota"
        ") GROUP BY tenant HAVING sum(counted) != sum(known)"
    )
    for tenant, there, known in rows.fetchall():
        yield Disagreement(
            "registry-quota",
            tenant,
            f"{known} workspaces are counted, and there are {there}",
            ((RECOUNT,),),
        )


def _tokens(db: sqlite3.Connection) -> Iterator[Disagreement]:
    """Whoever has the secret of such a hash would not be let in: nothing is lost with it."""
    rows = db.execute(
        "SELECT tenant, id, count(*) FROM token_hash h WHERE NOT EXISTS (SELECT 1 FROM token t"
        " WHERE t.tenant = h.tenant AND t.id = h.id AND t.revoke_time = 0) GROUP BY tenant, id"
    )
    for tenant, id_, count in rows.fetchall():
        delete = "DELETE FROM token_hash WHERE tenant = ? AND id = ?"
        yield Disagreement(
            "registry-token",
            f"{tenant}/{id_}",
            f"{count} hashes of a token that is not there, or revoked",
            ((delete, tenant, id_),),
        )


def _document(record: Record) -> Iterator[Disagreement]:
    try:
        message = pb.Environment.FromString(record.document)
    except Exception as error:  # As protobuf has it, by implementation.
        yield Disagreement("registry-document", record.uid, f"cannot be read: {error}"[:_LONG])
        return
    should = (
        message.tenant,
        message.name,
        message.uid,
        message.state,
        message.operation,
        message.lease_expire_time.ToNanoseconds(),
        message.revision,
        message.create_time.ToNanoseconds(),
    )
    names = ("tenant", "name", "uid", *_MENDED)
    wrong = [
        name for name, value in zip(names, should, strict=True) if getattr(record, name) != value
    ]
    if not wrong:
        return
    if {"tenant", "name", "uid"} & set(wrong):
        yield Disagreement(
            "registry-document", record.uid, f"{', '.join(wrong)} is another in the document"
        )
        return
    update = f"UPDATE environment SET {' = ?, '.join(_MENDED)} = ? WHERE uid = ?"  # noqa: S608
    yield Disagreement(
        "registry-document",
        record.uid,
        f"{', '.join(wrong)} is another in the document",
        ((update, *should[3:], record.uid),),
    )
