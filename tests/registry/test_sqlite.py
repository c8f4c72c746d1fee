"""What SQLite adds to a `Store`: files, and one process at a time."""

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from services.registry.database import commit, connect, migrate
from services.registry.errors import DiskFull, StartError
from services.registry.sqlite import SqliteStore
from services.registry.store import Key
from tests.registry.test_store import DEMO, Refusal, put


async def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "registry"
    async with SqliteStore.open(folder / "db") as store:
        await store.write(DEMO, put(DEMO))
        modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == dict.fromkeys(("db", "db-wal", "db-shm", "db.lock"), 0o600)
    assert {each.stat().st_mode & 0o777 for each in (folder, folder.parent)} == {0o700}


async def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(StartError, match="chmod 0700"):
        async with SqliteStore.open(folder / "db"):
            pass
    assert folder.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("kind", ["garbage", "folder", "nowhere"])
async def test_what_is_no_database_is_told_with_what_to_do(tmp_path: Path, kind: str) -> None:
    """Not by a traceback: whoever reads it was called at night."""
    path = Path("/proc/none/db") if kind == "nowhere" else tmp_path / "db"
    if kind == "garbage":
        path.write_bytes(b"no database" * 999)
    if kind == "folder":
        path.mkdir()
    told = "cove admin restore" if kind == "garbage" else "COVE_REGISTRY__DATABASE"
    with pytest.raises(StartError, match=f"^{path.parent}.*: .*{told}"):
        async with SqliteStore.open(path):
            pass
    assert kind != "garbage" or path.read_bytes() == b"no database" * 999


async def test_a_second_registry_is_refused(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "db"):
        with pytest.raises(StartError, match="another registry"):
            async with SqliteStore.open(tmp_path / "db", lock_wait=0):
                pass


async def test_a_snapshot_that_was_read_holds_the_log_no_longer_than_that(tmp_path: Path) -> None:
    """However slow whoever reads it is then: as long as it is held the log grows."""
    path = tmp_path / "db"
    async with SqliteStore.open(path) as store:
        await store.write(DEMO, put(DEMO))
        async with store.snapshot(None) as snapshot:
            (record,) = await snapshot.page(None)
            await store.write(DEMO, put(DEMO))
            with closing(connect(path)) as db:
                (busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            assert not busy
            assert await snapshot.page(Key(record.tenant, record.name)) == []
            assert snapshot.revision == record.revision == 1


def test_what_failed_half_way_is_undone(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "db")) as db:
        migrate(db)
        db.execute("CREATE TABLE number (value INTEGER)")

        def insert(value: int, db: sqlite3.Connection) -> None:
            db.execute("INSERT INTO number VALUES (?)", (value,))
            if value % 2:
                raise Refusal

        answers = commit(db, [partial(insert, value) for value in range(20)])
        assert [isinstance(answer, Refusal) for answer in answers] == [False, True] * 10
        kept = db.execute("SELECT value FROM number").fetchall()
        assert kept == [(number,) for number in range(0, 20, 2)]


def test_a_full_disk_is_told_and_survived(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "db")) as db:
        migrate(db)
        db.execute("CREATE TABLE blob (data BLOB)")
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages + 20}")

        def insert(size: int, db: sqlite3.Connection) -> None:
            db.execute("INSERT INTO blob VALUES (?)", (bytes(size),))

        with pytest.raises(DiskFull):
            commit(db, [partial(insert, 200_000)])
        assert commit(db, [partial(insert, 10)]) == [None]
        assert db.execute("SELECT count(*) FROM blob").fetchone() == (1,)
