"""Writes the fixtures of the formats as they are now: `python -m tests.upgrade.make NAME...`.

A fixture is never written again: what was written by a version stays as that version wrote it.
With a new version of a format make the next one, and leave the former for `test_formats.py`.
"""

import asyncio
import json
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

from agent import LOG_VERSION, PROTOCOL_VERSION, formats, frames
from agent.handle import Handle
from agent.protocol import Facts, Mode, Overlay, SandboxSpec
from agent.record import ExitKind, Result
from cove.mount.v1.mount_pb2 import Mount
from cove.registry.v1.audit_pb2 import AuditEntry
from cove.registry.v1.registry_pb2 import Environment
from cove_server.admin.archive import Archive, created
from gateway.spool import Spool
from servicekit.fencing import Fences
from servicekit.ledger import Ledger
from services.executor.ending import End, Reason
from services.executor.hole import Hole
from services.git.kept import Kept
from services.git.record import Mode as TreeMode
from services.git.record import Record, Snapshot, State, written
from services.registry.database import migrate
from services.registry.migrate import migrations

FIXTURES: Final = Path(__file__).parent / "fixtures"
_LATE: Final = 4 * 10**18
UID: Final = "abcdefghijklmnop"
COMMIT: Final = "0123456789abcdef0123456789abcdef01234567"
NEWEST: Final = max(each.number for each in migrations("sqlite"))


def log() -> bytes:
    result = Result(kind=ExitKind.CODE, number=7, output_bytes=6, start_ns=1, end_ns=9).encode()
    body = result[: formats.RESULT_HEADER.size + formats.RESULT_HEADER.unpack_from(result)[2]]
    return b"".join(
        [
            formats.record(formats.KIND_START, 0, 1, 0, 0),
            formats.record(formats.KIND_CHUNK, formats.STDOUT, 2, 0, 4) + b"out\n",
            formats.record(formats.KIND_GAP, 0, 3, 4, 8) + formats.GAP.pack(2),
            formats.record(formats.KIND_EXIT, 0, 9, 6, len(body)) + body,
        ]
    )


def sandbox() -> bytes:
    spec = SandboxSpec(
        uid=UID,
        home="/s/home",
        tmp="/s/tmp",
        overlay=Overlay(lowers=("/s/lower",), upper="/s/upper", work="/s/work", xattrs="trusted"),
        lock="/s/lock",
    )
    return json.dumps(spec.to_json(), indent=1).encode()


def facts() -> bytes:
    found = Facts(
        version=PROTOCOL_VERSION,
        mode=Mode.ROOT,
        node="node-1",
        sandbox_uid=60900,
        bwrap="0.11.0",
        memory="cgroup_v2",
        pids="cgroup_v2",
        cpu="cgroup_v2",
        spec=2,
    )
    return json.dumps(found.to_json(2), indent=1).encode()


def worktree() -> bytes:
    record = Record(
        uid=UID,
        tenant="default",
        asked="https://example.org/app.git",
        repository="https://example.org/app.git",
        key="0123456789abcdef0123456789abcdef",
        revision="main",
        branch="cove/demo",
        create_time=1.5,
        mode=TreeMode.TRUSTED,
        state=State.READY,
        base_commit=COMMIT,
        checkout=COMMIT,
        layers=("layeraaaaaaaaaaa",),
        snapshots=(Snapshot(id="one", layers=("layeraaaaaaaaaaa",), head=COMMIT, time=2.5),),
        last_skipped=(("a", "why"),),
    )
    return json.dumps(written(record), indent=1).encode()


def kept() -> bytes:
    made = Kept(
        uid=UID,
        tenant="default",
        asked="https://example.org/app.git",
        repository="https://example.org/app.git",
        key="0123456789abcdef0123456789abcdef",
        create_time=1.5,
    )
    return json.dumps(asdict(made), indent=1).encode()


def mount() -> bytes:
    return Mount(
        version=2,
        mode=Mount.MODE_OVERLAY,
        lowers=["git/checkouts/default/key/commit/tree"],
        upper=f"git/worktrees/{UID}/upper",
        work=f"git/worktrees/{UID}/work",
        lock=f"git/worktrees/{UID}/lock",
        xattrs=Mount.XATTRS_TRUSTED,
    ).SerializeToString(deterministic=True)


def environment() -> Environment:
    made = Environment(
        name="environments/demo", uid=UID, tenant="default", state=Environment.STATE_READY,
        revision=7, etag="7",
    )  # fmt: skip
    made.create_time.FromSeconds(1)
    made.update_time.FromSeconds(2)
    return made


def rows(quoted: Callable[[bytes], str]) -> list[str]:
    """One in each table of the registry that keeps something."""
    document = quoted(environment().SerializeToString(deterministic=True))
    key = f"'default', 'environments/demo', '{UID}'"
    return [
        "INSERT INTO environment (tenant, name, uid, state, operation, lease_start, lease_end,"
        " revision, document, create_time, update_time, counted)"
        f" VALUES ({key}, 2, 0, 0, 0, 7, {document}, 1000000000, 2000000000, 1)",
        "INSERT INTO change (revision, time, tenant, name, uid, document, previous)"
        f" VALUES (7, 3, {key}, {document}, 0)",
        "INSERT INTO request (tenant, principal, rpc, request_id, time, digest, response)"
        f" VALUES ('default', 'ada', 'rpc', 'one', 4, {quoted(b'd')}, {quoted(b'r')})",
        "UPDATE counter SET latest = 7, compacted = 6",
        f"INSERT INTO secret (name, value) VALUES ('page_tokens', {quoted(bytes(32))})",
        "INSERT INTO quota (tenant, counted, workspaces) VALUES ('default', 1, 5)",
        "INSERT INTO audit (id, tenant, time, principal, action, resource, code, document)"
        f" VALUES ('one', 'default', 5, 'ada', 'rpc', 'workspaces/demo', 'OK', {quoted(b'')})",
        "INSERT INTO audit_swept (tenant, until, count) VALUES ('default', 1, 2)",
        "INSERT INTO token (tenant, id, role, workspace, workspace_uid, description, creator,"
        " create_time, expire_time, revoke_time)"
        f" VALUES ('default', 'ci', 2, 'environments/demo', '{UID}', 'd', 'ada', 1, {_LATE}, 0)",
        "INSERT INTO token_hash (hash, tenant, id, time)"
        f" VALUES ({quoted(bytes(32))}, 'default', 'ci', 1)",
    ]


def schema() -> bytes:
    """Of the registry, with rows."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db)
        for statement in rows(lambda data: f"X'{data.hex()}'"):
            db.execute(statement)
        return "\n".join(db.iterdump()).encode() + b"\n"


def postgres() -> bytes:
    """The same in PostgreSQL: what the migrations of then made, with rows."""
    parts = ["CREATE TABLE migration (version INTEGER PRIMARY KEY)"]
    for number, script in migrations("postgres"):
        parts += [script.rstrip().removesuffix(";"), f"INSERT INTO migration VALUES ({number})"]
    parts += rows(lambda data: f"'\\x{data.hex()}'::bytea")
    return "".join(f"{part};\n" for part in parts).encode()


def ledger() -> bytes:
    return asyncio.run(_dump(Ledger.open, ("INSERT INTO entry VALUES"
        " ('default', 'ada', 'rpc', 'one', X'64', X'72', 4e9)",)))  # fmt: skip


def fences() -> bytes:
    opened = partial(Fences.open, in_use=lambda _: True)
    return asyncio.run(_dump(opened, (f"INSERT INTO fence VALUES ('{UID}', 7, 4e9)",)))


async def _dump(
    opened: Callable[[Path], AbstractAsyncContextManager[object]], statements: Sequence[str]
) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.db"
        async with opened(path):
            pass
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            for statement in statements:
                db.execute(statement)
            (version,) = db.execute("PRAGMA user_version").fetchone()
            return "\n".join([*db.iterdump(), f"PRAGMA user_version = {version};", ""]).encode()


def spool() -> bytes:
    """A call that ended, and one whose gateway was killed."""
    with tempfile.TemporaryDirectory() as folder:
        made = Spool(Path(folder) / "audit")
        for name in ("ended", "begun"):
            made.began(AuditEntry(id=name, action="rpc"))
        made.ended(AuditEntry(id="ended", action="rpc", code="OK"))
        made.close(empty=False)
        return next((Path(folder) / "audit").iterdir()).read_bytes()


def backup() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "backup.tar"
        with created(path) as file, Archive(file) as archive:
            archive.add_bytes("node", b"node-1\n", Path(__file__).stat())
            archive.finish(
                {
                    "version": 1, "time": "2026-01-01T00:00:00+00:00", "cove": "0.1.0",
                    "scope": "state", "owner": "root", "schema": 1, "revision": 5,
                    "environments": 0, "gone": [], "left_out": 0, "left_out_first": [],
                }
            )  # fmt: skip
        return path.read_bytes()


NOW: Final[dict[str, Callable[[], bytes]]] = {
    f"frame.v{PROTOCOL_VERSION}.bin": lambda: frames.frame(PROTOCOL_VERSION, frames.OK, 5, b"yes"),
    "handle.v1.txt": lambda: Handle(driver="local", node="node-1", uid=UID).encode(),
    f"log.v{LOG_VERSION}.bin": log,
    f"result.v{LOG_VERSION}.bin": lambda: Result(kind=ExitKind.SIGNAL, number=9).encode(),
    "end.v1.bin": lambda: End(reason=Reason.CODE, number=7, output_bytes=6).encode(),
    "hole.v1.bin": lambda: Hole(24, 4096, 0, 4000).encode(),
    "sandbox.v2.json": sandbox,
    "facts.v2.json": facts,
    "worktree.v2.json": worktree,
    "kept.v1.json": kept,
    "mount.v2.bin": mount,
    f"schema.v{NEWEST}.sql": schema,
    f"postgres.v{NEWEST}.sql": postgres,
    "ledger.v1.sql": ledger,
    "fences.v1.sql": fences,
    "spool.v1.bin": spool,
    "backup.v1.tar": backup,
}


def main() -> None:
    for name in sys.argv[1:] or NOW:
        path = FIXTURES / name
        if path.exists():
            sys.stderr.write(f"{name} is there, and stays\n")
        else:
            path.write_bytes(NOW[name]())


if __name__ == "__main__":
    main()
