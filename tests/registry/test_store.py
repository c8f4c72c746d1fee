"""What every `Store` does, and what SQLite adds to it."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from services.registry.errors import (
    DiskFull,
    EnvironmentNotFound,
    RequestIdReused,
    ShuttingDown,
    StartError,
    WatcherTooSlow,
)
from services.registry.feed import Event, Feed
from services.registry.retention import Retention
from services.registry.sqlite import SqliteStore
from services.registry.store import Change, Key, Outcome, Record, RequestId, Span
from services.registry.writer import Writer
from tests.registry.caller import Clock

DEMO = Key("acme", "environments/demo")


class Refusal(Exception):
    """What a rule would raise."""


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[SqliteStore]:
    retention = Retention(changes=10)
    async with SqliteStore.open(tmp_path / "r" / "db", now=clock, retention=retention) as store:
        yield store


def put(key: Key, document: bytes = b"", uid: str = "") -> Change:
    """Keeps the document; answers with the revision."""

    def change(_: Record | None, revision: int) -> Outcome:
        record = Record(*key, uid or f"uid of {key}", 1, 1, 0, 0, revision, document)
        return Outcome(response=b"%d" % revision, put=record)

    return change


def remove(_: Record | None, revision: int) -> Outcome:
    return Outcome(response=b"%d" % revision, remove=True)


def refuse(_: Record | None, revision: int) -> Outcome:
    raise Refusal


def key(number: int, tenant: str = "acme") -> Key:
    return Key(tenant, f"environments/e{number:03}")


async def test_what_was_written_is_there(store: SqliteStore) -> None:
    assert not await store.exists(DEMO)
    with pytest.raises(EnvironmentNotFound):
        await store.get(DEMO)
    assert await store.write(DEMO, put(DEMO, b"one")) == b"1"
    assert await store.write(DEMO, put(DEMO, b"two")) == b"2"
    assert (await store.get(DEMO)).document == b"two"
    assert await store.write(DEMO, remove) == b"3"
    assert not await store.exists(DEMO)
    assert await store.write(DEMO, remove) == b"4"  # Nothing was there: nothing is counted.
    assert await store.span() == Span(0, 3)


async def test_a_refused_change_writes_nothing(store: SqliteStore) -> None:
    with pytest.raises(Refusal):
        await store.write(DEMO, refuse)
    assert await store.span() == Span(0, 0)


async def test_a_request_is_answered_once(store: SqliteStore, clock: Clock) -> None:
    request = RequestId("acme", "ada", "Rpc", "id", b"digest")
    assert await store.write(DEMO, put(DEMO), request) == b"1"
    assert await store.write(DEMO, put(DEMO), request) == b"1"
    with pytest.raises(RequestIdReused):
        await store.write(DEMO, put(DEMO), request._replace(digest=b"other"))
    assert await store.write(DEMO, put(DEMO), request._replace(principal="bob")) == b"2"
    clock.move(24 * 3600 + 1)
    assert await store.write(DEMO, put(DEMO), request._replace(digest=b"other")) == b"3"


async def test_those_who_wait_share_one_commit(store: SqliteStore) -> None:
    gate = threading.Event()

    def held(current: Record | None, revision: int) -> Outcome:
        assert gate.wait(10)
        return put(DEMO)(current, revision)

    async def release() -> None:
        gate.set()

    before = store.commits
    writes = [store.write(key(number), put(key(number))) for number in range(200)]
    await asyncio.gather(store.write(DEMO, held), *writes, release())
    assert store.commits - before <= 2
    assert (await store.span()).latest == 201


async def test_one_that_fails_takes_nothing_of_its_group_with_it(store: SqliteStore) -> None:
    gate = threading.Event()

    def held(_: Record | None, revision: int) -> Outcome:
        assert gate.wait(10)
        return Outcome(response=b"")

    async def release() -> None:
        gate.set()

    before = store.commits
    answers = await asyncio.gather(
        store.write(DEMO, held),
        store.write(key(1), put(key(1), uid="same")),
        store.write(key(2), refuse),
        store.write(key(3), put(key(3), uid="same")),
        store.write(key(4), put(key(4))),
        release(),
        return_exceptions=True,
    )
    assert store.commits - before <= 2
    assert answers[1] == b"1"
    assert isinstance(answers[2], Refusal)
    assert isinstance(answers[3], sqlite3.IntegrityError)
    assert answers[4] == b"2"
    assert [event.name for event in await store.history(0, 9)] == [key(1).name, key(4).name]


async def test_revisions_have_no_holes_and_are_told_in_order(store: SqliteStore) -> None:
    writes = [
        store.write(key(number), refuse if number % 3 else put(key(number)))
        for number in range(300)
    ]
    await asyncio.gather(*writes, return_exceptions=True)
    kept = await store.history(0, 1000)
    assert [event.revision for event in kept] == list(range(1, 101))
    assert await store.feed.after(0, 0) == kept


async def test_a_snapshot_stays_as_it_was(store: SqliteStore) -> None:
    for number in range(300):
        await store.write(key(number), put(key(number)))
    async with store.snapshot("acme") as snapshot:
        first = await snapshot.page(None)
        await store.write(key(299), remove)
        await store.write(key(300), put(key(300)))
        rest = await snapshot.page(Key("acme", first[-1].name))
        assert await snapshot.page(Key("acme", rest[-1].name)) == []
    assert snapshot.revision == 300
    assert [record.name for record in first + rest] == [key(number).name for number in range(300)]


async def test_a_snapshot_is_not_held_for_ever(store: SqliteStore) -> None:
    await store.write(DEMO, put(DEMO))
    ended = asyncio.Event()
    async with store.snapshot(None, limit=0) as snapshot:
        asyncio.get_running_loop().call_later(0, ended.set)
        await ended.wait()
        with pytest.raises(WatcherTooSlow):
            await snapshot.page(None)


async def test_history_is_kept_by_number_and_by_age(store: SqliteStore, clock: Clock) -> None:
    for number in range(25):
        await store.write(key(number), put(key(number)))
    assert await store.sweep() == 15
    assert await store.span() == Span(15, 25)
    assert (await store.history(0, 99))[0].revision == 16
    clock.move(24 * 3600 + 1)
    await store.write(DEMO, put(DEMO))
    await store.sweep()
    assert await store.span() == Span(25, 26)
    assert await store.sweep() == 0
    assert await store.exists(key(0))


async def test_requests_are_kept_for_a_day(store: SqliteStore, clock: Clock) -> None:
    await store.write(DEMO, put(DEMO), RequestId("acme", "ada", "Rpc", "id", b""))
    assert await store.sweep() == 0
    clock.move(24 * 3600 + 1)
    assert await store.sweep() == 2  # And the change.


async def test_all_is_there_after_it_was_closed(tmp_path: Path) -> None:
    path = tmp_path / "db"
    request = RequestId("acme", "ada", "Rpc", "id", b"")
    async with SqliteStore.open(path) as store:
        await store.write(DEMO, put(DEMO, b"one"), request)
        secret = await store.secret("s")
        record, kept = await store.get(DEMO), await store.history(0, 9)
    async with SqliteStore.open(path) as store:
        assert await store.get(DEMO) == record
        assert await store.history(0, 9) == kept
        assert await store.secret("s") == secret
        assert await store.write(DEMO, put(DEMO), request) == b"1"
        assert await store.write(DEMO, put(DEMO)) == b"2"


async def test_writes_that_wait_are_done_before_it_closes(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "db") as store:
        writes = asyncio.gather(
            *(store.write(key(number), put(key(number))) for number in range(100))
        )
        started = asyncio.Event()
        asyncio.get_running_loop().call_soon(started.set)
        await started.wait()
    assert len(await writes) == 100
    with pytest.raises(ShuttingDown):
        await store.write(DEMO, put(DEMO))


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


async def test_a_second_registry_is_refused(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "db"):
        with pytest.raises(StartError, match="another registry"):
            async with SqliteStore.open(tmp_path / "db", lock_wait=0):
                pass


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with SqliteStore.open(path) as store:
        await store.write(DEMO, put(DEMO))
    db = sqlite3.connect(path)
    with db:
        db.execute("INSERT INTO migration VALUES (999)")
    with pytest.raises(StartError, match="schema 999"):
        async with SqliteStore.open(path):
            pass
    assert db.execute("SELECT count(*) FROM environment").fetchone() == (1,)
    db.close()


async def test_what_failed_half_way_is_undone(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "db", isolation_level=None, check_same_thread=False)
    db.execute("CREATE TABLE number (value INTEGER)")
    writer: Writer[None] = Writer(db, lambda _: None)

    def insert(value: int) -> None:
        db.execute("INSERT INTO number VALUES (?)", (value,))
        if value % 2:
            raise Refusal

    writes = (writer.run(lambda _, value=value: insert(value)) for value in range(20))  # type: ignore[misc]
    answers = await asyncio.gather(*writes, return_exceptions=True)
    assert [isinstance(answer, Refusal) for answer in answers] == [False, True] * 10
    await writer.close()
    assert db.execute("SELECT value FROM number").fetchall() == [(n,) for n in range(0, 20, 2)]
    db.close()


async def test_a_full_disk_is_told_and_survived(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "db", isolation_level=None, check_same_thread=False)
    db.execute("CREATE TABLE blob (data BLOB)")
    db.execute("PRAGMA max_page_count = 20")
    writer: Writer[None] = Writer(db, lambda _: None)

    def insert(size: int) -> None:
        db.execute("INSERT INTO blob VALUES (?)", (bytes(size),))

    with pytest.raises(DiskFull):
        await writer.run(lambda _: insert(200_000))
    await writer.run(lambda _: insert(10))
    await writer.close()
    assert db.execute("SELECT count(*) FROM blob").fetchone() == (1,)
    db.close()


def event(revision: int, size: int = 1) -> Event:
    return Event(revision, "acme", "environments/demo", "uid", bytes(size))


async def test_the_feed_keeps_the_last_changes_by_number_and_bytes() -> None:
    feed = Feed(5, max_changes=3, max_bytes=100)
    assert feed.holds(5)
    assert not feed.holds(4)
    feed.publish([event(6), event(7), event(8), event(9)])
    assert await feed.after(6, 0) == [event(7), event(8), event(9)]
    assert await feed.after(8, 0) == [event(9)]
    assert await feed.after(9, 0) == []
    with pytest.raises(WatcherTooSlow):
        await feed.after(5, 0)
    feed.publish([event(10, 1000)])
    assert await feed.after(9, 0) == [event(10, 1000)]
    assert not feed.holds(8)
    feed.publish([event(11)])
    assert await feed.after(10, 0) == [event(11)]
    assert not feed.holds(9)


async def test_the_feed_wakes_all_who_wait() -> None:
    feed = Feed(0)
    waiting = [asyncio.create_task(feed.after(0, 10)) for _ in range(5)]
    asyncio.get_running_loop().call_soon(feed.publish, [event(1)])
    assert await asyncio.gather(*waiting) == [[event(1)]] * 5


def test_retention_defaults_are_the_stated_ones() -> None:
    assert Retention() == Retention(
        changes=100_000, changes_age=timedelta(hours=24), requests_age=timedelta(hours=24)
    )
