"""What has to be written on a full disk is written into room that was kept for it."""

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from cove.registry.v1.audit_pb2 import AuditEntry
from gateway.spool import Spool, left
from servicekit import sqlite_file
from servicekit.config import StartError
from servicekit.sqlite_file import Opened

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "cove-room", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    with (disk / "ballast").open("ab", buffering=0) as ballast:
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while True:
                    ballast.write(bytes(size))
    assert os.statvfs(disk).f_bfree == 0


def opened(disk: Path) -> AbstractContextManager[Opened]:
    schema = "CREATE TABLE IF NOT EXISTS entry (value TEXT);"
    return sqlite_file.opened(
        disk / "file.db", schema=schema, version=1, synchronous="FULL", too_new=StartError
    )


def write(db: sqlite3.Connection) -> None:
    """Some at once, and over and over: the log begins anew in between."""
    for _ in range(500):
        db.execute("INSERT INTO entry VALUES (?)", ("x" * 100,))
        db.execute("DELETE FROM entry")


def test_a_database_is_written_to_and_again_after_it_was_closed(disk: Path) -> None:
    with opened(disk) as (db, _):
        fill(disk)
        write(db)
    assert (disk / "file.db-room").exists()
    fill(disk)
    with opened(disk) as (db, _):
        assert not (disk / "file.db-room").exists()
        fill(disk)
        write(db)
        db.execute("INSERT INTO entry VALUES ('last')")
    with opened(disk) as (db, _):
        assert db.execute("SELECT value FROM entry").fetchall() == [("last",)]


def test_without_room_a_database_works_until_the_disk_is_full(disk: Path) -> None:
    fill(disk)
    os.truncate(disk / "ballast", (16 << 20) - (3 << 20))
    with opened(disk) as (db, _):
        write(db)
        fill(disk)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            db.executemany("INSERT INTO entry VALUES (?)", [("x" * 1000,)] * 10_000)


def test_entries_of_the_audit_log_wait_on_a_full_disk_and_none_is_lost(disk: Path) -> None:
    spool = Spool(disk / "audit")
    fill(disk)
    for number in range(2000):
        entry = AuditEntry(id=str(number), action="rpc", resource="workspaces/demo")
        spool.began(entry)
        spool.ended(entry)
    with pytest.raises(OSError, match="space"):
        spool.rewrite((), ())  # It would lose its room.
    spool.ended(AuditEntry(id="last"))
    spool.close(empty=False)
    (found,) = left(disk / "audit")
    assert len(found.entries()) == 2001
