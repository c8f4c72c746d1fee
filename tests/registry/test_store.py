"""What every `Store` does."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from services.registry.errors import (
    EnvironmentNotFound,
    RequestIdReused,
    ShuttingDown,
    WatcherTooSlow,
)
from services.registry.feed import Event, Feed
from services.registry.retention import Retention
from services.registry.store import Change, Key, Outcome, Record, RequestId, Span
from tests.registry.caller import Clock
from tests.registry.stores import AnyStore, open_store

DEMO = Key("acme", "environments/demo")


class Refusal(Exception):
    """What a rule would raise."""


@pytest.fixture
async def store(database: str, clock: Clock) -> AsyncIterator[AnyStore]:
    async with open_store(database, now=clock, retention=Retention(changes=10)) as store:
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


async def test_what_was_written_is_there(store: AnyStore) -> None:
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


async def test_a_refused_change_writes_nothing(store: AnyStore) -> None:
    with pytest.raises(Refusal):
        await store.write(DEMO, refuse)
    assert await store.span() == Span(0, 0)


async def test_a_request_is_answered_once(store: AnyStore, clock: Clock) -> None:
    request = RequestId("acme", "ada", "Rpc", "id", b"digest")
    assert await store.write(DEMO, put(DEMO), request) == b"1"
    assert await store.write(DEMO, put(DEMO), request) == b"1"
    with pytest.raises(RequestIdReused):
        await store.write(DEMO, put(DEMO), request._replace(digest=b"other"))
    assert await store.write(DEMO, put(DEMO), request._replace(principal="bob")) == b"2"
    clock.move(24 * 3600 + 1)
    assert await store.write(DEMO, put(DEMO), request._replace(digest=b"other")) == b"3"


async def test_those_who_wait_share_one_commit(store: AnyStore) -> None:
    gate = threading.Event()

    def held(current: Record | None, revision: int) -> Outcome:
        assert gate.wait(10)
        return put(DEMO)(current, revision)

    async def release() -> None:
        gate.set()

    before = store.commits
    writes = [store.write(key(number), put(key(number))) for number in range(60)]
    await asyncio.gather(store.write(DEMO, held), *writes, release())
    assert store.commits - before <= 2
    assert (await store.span()).latest == 61


async def test_one_that_fails_takes_nothing_of_its_group_with_it(store: AnyStore) -> None:
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
    assert isinstance(answers[3], sqlite3.IntegrityError | asyncpg.UniqueViolationError)
    assert answers[4] == b"2"
    assert [event.name for event in await store.history(0, 9)] == [key(1).name, key(4).name]


async def test_revisions_have_no_holes_and_are_told_in_order(store: AnyStore) -> None:
    writes = [
        store.write(key(number), refuse if number % 3 else put(key(number)))
        for number in range(300)
    ]
    await asyncio.gather(*writes, return_exceptions=True)
    kept = await store.history(0, 1000)
    assert [event.revision for event in kept] == list(range(1, 101))
    assert await store.feed.after(0, 0) == kept


async def test_a_snapshot_stays_as_it_was(store: AnyStore) -> None:
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


async def test_what_is_read_for_a_watcher_at_once_is_little_however_large_each_is(
    store: AnyStore,
) -> None:
    document = bytes(1 << 20)
    for number in (*range(6), *range(6)):  # Of the later ones what they replaced is read, too.
        await store.write(key(number), put(key(number), document))
    revision, events = 0, 0
    while read := await store.history(revision, 256):
        assert len(read) == 1 or sum(event.size for event in read) <= 2 << 20
        assert [event.revision for event in read] == [*range(revision + 1, read[-1].revision + 1)]
        revision, events = read[-1].revision, events + len(read)
    assert events == 12
    assert len(await store.feed.after(6, 0)) == 1
    names, after = [], None
    async with store.snapshot(None) as snapshot:
        while records := await snapshot.page(after):
            assert sum(len(record.document) for record in records) <= 2 << 20
            names += [record.name for record in records]
            after = Key("acme", names[-1])
    assert names == [key(number).name for number in range(6)]


async def test_a_snapshot_is_not_held_for_ever(store: AnyStore) -> None:
    await store.write(DEMO, put(DEMO))
    ended = asyncio.Event()
    async with store.snapshot(None, limit=0) as snapshot:
        asyncio.get_running_loop().call_later(0, ended.set)
        await ended.wait()
        with pytest.raises(WatcherTooSlow):
            await snapshot.page(None)


async def test_history_is_kept_by_number_and_by_age(store: AnyStore, clock: Clock) -> None:
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


async def test_requests_are_kept_for_a_day(store: AnyStore, clock: Clock) -> None:
    await store.write(DEMO, put(DEMO), RequestId("acme", "ada", "Rpc", "id", b""))
    assert await store.sweep() == 0
    clock.move(24 * 3600 + 1)
    assert await store.sweep() == 2  # And the change.


async def test_all_is_there_after_it_was_closed(database: str) -> None:
    request = RequestId("acme", "ada", "Rpc", "id", b"")
    async with open_store(database) as store:
        await store.write(DEMO, put(DEMO, b"one"), request)
        secret = await store.secret("s")
        record, kept = await store.get(DEMO), await store.history(0, 9)
    async with open_store(database) as store:
        assert await store.get(DEMO) == record
        assert await store.history(0, 9) == kept
        assert await store.secret("s") == secret
        assert await store.write(DEMO, put(DEMO), request) == b"1"
        assert await store.write(DEMO, put(DEMO)) == b"2"


async def test_writes_that_wait_are_done_before_it_closes(database: str) -> None:
    async with open_store(database) as store:
        writes = asyncio.gather(
            *(store.write(key(number), put(key(number))) for number in range(100))
        )
        started = asyncio.Event()
        asyncio.get_running_loop().call_soon(started.set)
        await started.wait()
    assert len(await writes) == 100
    with pytest.raises(ShuttingDown):
        await store.write(DEMO, put(DEMO))


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
