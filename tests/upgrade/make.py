"""Writes the fixtures of the formats as they are now: `python -m tests.upgrade.make NAME...`.

A fixture is never written again: what was written by a version stays as that version wrote it.
With a new version of a format make the next one, and leave the former for `test_formats.py`.
"""

import json
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Final

from agent import LOG_VERSION, PROTOCOL_VERSION, formats, frames
from agent.handle import Handle
from agent.protocol import Facts, Mode, Overlay, SandboxSpec
from agent.record import ExitKind, Result
from cove.mount.v1.mount_pb2 import Mount
from cove_server.admin.archive import Archive, created
from services.executor.ending import End, Reason
from services.executor.hole import Hole
from services.git.kept import Kept
from services.git.record import Mode as TreeMode
from services.git.record import Record, Snapshot, State
from services.registry.database import migrate

FIXTURES: Final = Path(__file__).parent / "fixtures"
UID: Final = "abcdefghijklmnop"
COMMIT: Final = "0123456789abcdef0123456789abcdef01234567"


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
    return json.dumps(asdict(record), indent=1).encode()


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


def schema() -> bytes:
    """Of the registry, with one row in each table that keeps something."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db)
        return "\n".join(db.iterdump()).encode() + b"\n"


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
    "schema.v1.sql": schema,
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
