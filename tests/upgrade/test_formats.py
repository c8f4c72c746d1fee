"""What an earlier version left on disk, or says, is read; what a later one did is refused.

The fixtures are files as they were written then. A new version of a format breaks the test that
names the version, until the one before is among what is read, and the new one has a fixture.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import asyncpg
import pytest

from agent import LOG_VERSION, PROTOCOL_VERSION, frames
from agent.handle import Handle
from agent.protocol import SPEC_VERSION, Facts, SandboxSpec
from agent.record import Damage, Kind, LogReader, Result
from cove.mount.v1.mount_pb2 import Mount
from cove.provenance import Key as PublicKey
from cove.provenance import verify
from cove.registry.v1.registry_pb2 import Environment
from cove_server.admin import backup, moving, reading
from cove_server.admin.errors import Refused
from gateway.spool import UNKNOWN, left
from servicekit import calls
from servicekit.calls import Fence
from servicekit.errors import InvalidArgument
from servicekit.fencing import Fences, FencesTooNew, LeaseTaken
from servicekit.ledger import Ledger, LedgerTooNew
from services.executor.ending import End
from services.executor.hole import Hole
from services.executor.store import Store
from services.git import kept, shelf
from services.git import record as worktrees
from services.provider.convert import worktree_of
from services.provider.drivers.records import Records
from services.registry.database import migrate
from services.registry.errors import StartError
from services.registry.store import Key
from tests.registry.postgres import Postgres, running
from tests.registry.stores import open_store
from tests.upgrade.make import COMMIT, FIXTURES, NOW, UID, environment


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running() as server:
        yield server


def fixture(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def bumped(name: str, version: int) -> bytes:
    """The same as a later version might write it."""
    values = json.loads(fixture(name))
    return json.dumps({**values, "version": version}).encode()


def test_a_version_that_is_new_has_a_fixture() -> None:
    """Fails when a version was raised: then read what was before, and freeze what is now."""
    assert (PROTOCOL_VERSION, LOG_VERSION, SPEC_VERSION) == (1, 1, 2)
    assert (worktrees.VERSION, backup.VERSION, kept.VERSION) == (2, 1, 1)
    assert [name for name in NOW if not (FIXTURES / name).exists()] == []


@pytest.mark.parametrize("name", [name for name in NOW if name not in ("backup.v1.tar",)])
def test_what_is_written_now_is_as_it_was(name: str) -> None:
    """Bytes that an earlier service or agent reads."""
    if name.endswith(".sql"):
        return  # Migrations are only ever added, and SQLite may say the same otherwise: see below.
    assert NOW[name]() == fixture(name)


def test_frames() -> None:
    found = frames.split(bytearray(fixture("frame.v1.bin")))
    assert found == (1, frames.OK, 0, 5, b"yes")


def test_handles() -> None:
    assert Handle.decode(fixture("handle.v1.txt")).uid == UID
    with pytest.raises(ValueError, match="unknown version"):
        Handle.decode(b"MjpsOm46dTox")  # 2:l:n:u:1


def test_logs(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(fixture("log.v1.bin"))
    with (tmp_path / "log").open("rb") as file:
        reader = LogReader(file.fileno())
        found = reader.read()
    assert [each.kind for each in found] == [Kind.START, Kind.CHUNK, Kind.GAP, Kind.EXIT]
    assert (found[1].payload, found[2].size, reader.damage) == (b"out\n", 2, Damage.NONE)
    exited = Result.decode(found[3].payload)
    assert exited
    assert exited.number == 7


def test_results() -> None:
    result = Result.decode(fixture("result.v1.bin"))
    assert result
    assert result.number == 9
    later = bytearray(fixture("result.v1.bin"))
    later[8] = 2
    with pytest.raises(ValueError, match="unknown version"):
        Result.decode(bytes(later))


def test_ends_and_holes() -> None:
    end = End.decode(fixture("end.v1.bin"))
    assert end
    assert (end.number, end.output_bytes) == (7, 6)
    assert Hole.decode(fixture("hole.v1.bin")) == Hole(24, 4096, 0, 4000)


def test_sandboxes_and_what_a_launcher_can_do() -> None:
    first, second = (json.loads(fixture(f"sandbox.v{number}.json")) for number in (1, 2))
    assert SandboxSpec.from_json(first).worktree == "/s/tree"
    overlay = SandboxSpec.from_json(second).overlay
    assert overlay
    assert overlay.lowers == ("/s/lower",)
    assert Facts.from_json(json.loads(fixture("facts.v1.json"))).spec == 1
    assert Facts.from_json(json.loads(fixture("facts.v2.json"))).spec == 2
    later = {**json.loads(fixture("facts.v2.json")), "of_later": True}
    assert Facts.from_json(later).spec == 2
    with pytest.raises(TypeError, match="of_later"):
        SandboxSpec.from_json({**second, "of_later": True})


def test_kept_commits() -> None:
    assert kept.decoded(fixture("kept.v1.json")).uid == UID
    with pytest.raises(ValueError, match="version 2"):
        kept.decoded(bumped("kept.v1.json", 2))


def test_worktrees() -> None:
    first = worktrees.decoded(fixture("worktree.v1.json"))
    assert (first.version, first.mode, first.layers) == (1, worktrees.Mode.PLAIN, ())
    second = worktrees.decoded(fixture("worktree.v2.json"))
    assert (second.checkout, second.snapshots[0].id) == (COMMIT, "one")
    with pytest.raises(ValueError, match="version 3; 2 is known"):
        worktrees.decoded(bumped("worktree.v2.json", 3))


def test_checkouts(tmp_path: Path) -> None:
    directory = tmp_path / COMMIT
    (directory / "tree").mkdir(parents=True)
    (directory / "meta.json").write_bytes(fixture("checkout.v1.json"))
    meta = shelf.meta(directory)
    assert meta
    assert meta.files == 2
    (directory / "meta.json").write_bytes(bumped("checkout.v1.json", 2))
    assert shelf.meta(directory) is None  # Nothing is lost: it is filled anew.


def test_environments_of_the_local_driver(tmp_path: Path) -> None:
    records = Records(tmp_path)
    (tmp_path / UID).mkdir()
    for number, tree in ((1, f"git/worktrees/{UID}/tree"), (2, "")):
        (tmp_path / UID / "record").write_bytes(fixture(f"environment.v{number}.json"))
        found = records.read(UID)
        assert found
        assert (found.worktree.tree, found.spec.limits.processes) == (tree, 4096)
    (tmp_path / UID / "record").write_bytes(bumped("environment.v2.json", 3))
    assert records.read(UID) is None


def test_mounts() -> None:
    assert worktree_of(Mount(version=1, mode=Mount.MODE_PLAIN, worktree="t")).tree == "t"
    mount = Mount.FromString(fixture("mount.v2.bin"))
    assert worktree_of(mount).xattrs == "trusted"
    mount.version = 3
    with pytest.raises(InvalidArgument):
        worktree_of(mount)


def test_executions(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / UID / "one").mkdir(parents=True)
    (tmp_path / UID / "one" / "spec").write_bytes(fixture("execution.v1.json"))
    record = store.read(UID, "one")
    assert record
    assert (record.spec.argv, record.groups) == (("true",), ("/g",))
    (tmp_path / UID / "one" / "spec").write_bytes(bumped("execution.v1.json", 2))
    with pytest.raises(ValueError, match="another version"):
        store.read(UID, "one")


def made_of(dump: str, path: Path) -> Path:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(fixture(dump).decode())
    return path


async def test_ledgers(tmp_path: Path) -> None:
    path = made_of("ledger.v1.sql", tmp_path / "ledger.db")
    async with Ledger.open(path):
        pass
    with closing(sqlite3.connect(path)) as db:
        columns = "tenant, principal, rpc, request_id, digest, response, created"
        (row,) = db.execute(f"SELECT {columns} FROM entry").fetchall()
        assert row == ("default", "ada", "rpc", "one", b"d", b"r", 4e9)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        db.execute("PRAGMA user_version = 2")
    with pytest.raises(LedgerTooNew, match="version 2; this program knows 1"):
        async with Ledger.open(tmp_path / "ledger.db"):
            pass


async def test_fences(tmp_path: Path) -> None:
    path = made_of("fences.v1.sql", tmp_path / "fences.db")
    async with Fences.open(path, lambda _: True) as fences:
        for token, taken in ((6, True), (7, False), (8, False)):
            with (
                calls.detached(fence=Fence(UID, token)),
                pytest.raises(LeaseTaken) if taken else nullcontext(),
            ):
                await fences.guard(UID, noop)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 2")
    with pytest.raises(FencesTooNew, match="version 2; this program knows 1"):
        async with Fences.open(path, lambda _: True):
            pass


async def noop() -> None:
    pass


def test_entries_of_the_audit_log_on_their_way(tmp_path: Path) -> None:
    (tmp_path / "one.spool").write_bytes(fixture("spool.v1.bin"))
    (found,) = left(tmp_path)
    assert [(each.id, each.code) for each in found.entries()] == [
        ("ended", "OK"),
        ("begun", UNKNOWN),
    ]


def test_provenance() -> None:
    kept = json.loads(fixture("provenance.v1.json"))
    proven = verify(kept["envelope"], PublicKey.load(kept["key"]), kept["commit"].encode())
    assert (proven.uid, [each.id for each in proven.executions]) == (UID, ["one"])


@pytest.mark.parametrize("dump", sorted(FIXTURES.glob("schema.v*.sql")), ids=lambda path: path.stem)
def test_databases_of_the_registry(dump: Path) -> None:
    """From every earlier schema to that which a new database has."""
    with (
        closing(sqlite3.connect(":memory:", isolation_level=None)) as old,
        closing(sqlite3.connect(":memory:", isolation_level=None)) as new,
    ):
        old.executescript(dump.read_text())
        migrate(old)
        migrate(new)
        schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
        assert old.execute(schema).fetchall() == new.execute(schema).fetchall()
        old.execute("INSERT INTO migration VALUES (9999)")
        with pytest.raises(StartError, match="schema 9999"):
            migrate(old)


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_what_a_registry_had_is_there(
    tmp_path: Path, store: str, version: int, request: pytest.FixtureRequest
) -> None:
    """With one row in each table, as that version of either database wrote them."""
    if store == "sqlite":
        database = str(made_of(f"schema.v{version}.sql", tmp_path / "registry.db"))
    else:
        database = request.getfixturevalue("postgres").fresh()
        connection = await asyncpg.connect(database)
        await connection.execute(fixture(f"postgres.v{version}.sql").decode())
        await connection.close()
    tmp_path.chmod(0o700)
    async with open_store(database) as opened:
        record = await opened.get(Key("default", "environments/demo"))
        assert Environment.FromString(record.document) == environment()
        assert (await opened.span()).latest == 7
        assert [each.revision for each in await opened.history(6, 9)] == [7]
        assert await opened.secret("page_tokens") == bytes(32)
        quota = await opened.quotas.get("default")
        assert (quota.counted, quota.workspaces) == (1, 5)
        assert await opened.trail.removed("default") == (1, 2)
        if version >= 4:
            (found,) = await opened.tokens.valid([bytes(32)])
            assert (found.token.id, found.token.workspace_uid) == ("ci", UID)


def test_backups(tmp_path: Path) -> None:
    manifest = reading.verified(FIXTURES / "backup.v1.tar", backup.VERSION)
    assert (manifest.revision, manifest.scope) == (5, "state")
    assert [entry.name for entry, _ in reading.entries(FIXTURES / "backup.v1.tar")] == ["node"]
    with pytest.raises(Refused, match="version 1; 0 is known"):
        reading.verified(FIXTURES / "backup.v1.tar", 0)


def test_a_restore_that_was_interrupted(tmp_path: Path) -> None:
    (tmp_path / moving.MAKING).mkdir()
    (tmp_path / moving.MAKING / "node").write_text("new")
    (tmp_path / "node").write_text("old")
    (tmp_path / "restore.json").write_bytes(bumped("restore.v1.json", 2))
    with pytest.raises(ValueError, match="another version"):
        moving.go_on(tmp_path)
    assert (tmp_path / "node").read_text() == "old"
    (tmp_path / "restore.json").write_bytes(fixture("restore.v1.json"))
    assert moving.go_on(tmp_path)
    assert (tmp_path / "node").read_text() == "new"
    assert (tmp_path / "replaced-1" / "node").read_text() == "old"
