"""WatchEnvironments: nothing missed, nothing twice."""

import asyncio
from contextlib import AsyncExitStack
from typing import TypeAlias

import grpc

from cove.registry.v1 import registry_pb2 as pb
from services.registry.app import registry
from services.registry.config import Config
from services.registry.retention import Retention
from services.registry.store import Key, Outcome, Record
from tests.registry.caller import Caller, refused
from tests.registry.stores import open_store

READY = pb.Environment.STATE_READY
OUT_OF_RANGE = grpc.StatusCode.OUT_OF_RANGE

Call: TypeAlias = (
    "grpc.aio.UnaryStreamCall[pb.WatchEnvironmentsRequest, pb.WatchEnvironmentsResponse]"
)
Told: TypeAlias = tuple[str, int]


def told(event: pb.WatchEnvironmentsResponse) -> Told:
    """Kind and revision of an event."""
    kind = event.WhichOneof("event")
    assert kind
    return kind, getattr(event, kind).revision


async def read(call: Call) -> pb.WatchEnvironmentsResponse:
    """The next event. Fails when the stream ends."""
    event = await call.read()
    assert isinstance(event, pb.WatchEnvironmentsResponse)
    return event


async def change(call: Call) -> pb.WatchEnvironmentsResponse:
    """The next event that is not a heartbeat."""
    while (event := await read(call)).HasField("heartbeat"):
        pass
    return event


async def take(call: Call, count: int) -> list[Told]:
    """The next events that are not heartbeats."""
    return [told(await change(call)) for _ in range(count)]


async def test_a_snapshot_comes_first_then_changes(ada: Caller) -> None:
    one = await ada.register("one")
    two = await ada.register("two")
    async with ada.watch() as call:
        first = [await read(call) for _ in range(3)]
        assert [event.snapshot for event in first[:2]] == [one, two]
        assert told(first[2]) == ("snapshot_end", two.revision)
        moved = await ada.move("one", READY)
        await ada.deregister("two")
        put, gone = await change(call), await change(call)
        assert put.put == moved
        assert gone.delete == pb.WatchEnvironmentsResponse.Delete(
            name=two.name, uid=two.uid, tenant="acme", revision=moved.revision + 1
        )


async def test_without_a_snapshot_it_tells_what_happens_from_now_on(ada: Caller) -> None:
    for name in ("a", "b"):
        await ada.register(name)
    async with ada.watch(changes_only=True) as call:
        assert told(await read(call)) == ("snapshot_end", 2)
        await ada.move("a", READY)
        assert told(await change(call)) == ("put", 3)
        await ada.deregister("b")
        assert told(await change(call)) == ("delete", 4)


async def test_from_each_revision_on_the_same_changes_come(ada: Caller) -> None:
    all_: list[Told] = []
    for number in range(10):
        made = await ada.register(f"e{number}")
        moved = await ada.move(f"e{number}", READY)
        all_ += [("put", made.revision), ("put", moved.revision)]
    await ada.deregister("e0")
    all_.append(("delete", all_[-1][1] + 1))
    for place in range(1, len(all_)):
        async with ada.watch(from_revision=all_[place - 1][1]) as call:
            assert await take(call, len(all_) - place) == all_[place:]


async def test_a_watch_sees_its_tenant_only_unless_it_asks_for_all(
    channel: grpc.aio.Channel, ada: Caller
) -> None:
    other = Caller(channel, tenant="other")
    start = await ada.register("a")
    theirs = await other.register("b")
    async with ada.watch() as own, ada.watch(tenant="-") as all_:
        assert [kind for kind, _ in await take(own, 2)] == ["snapshot", "snapshot_end"]
        assert [kind for kind, _ in await take(all_, 3)][:2] == ["snapshot", "snapshot"]
        theirs = await other.move("b", READY)
        mine = await ada.move("a", READY)
        assert await take(own, 1) == [("put", mine.revision)]
        assert await take(all_, 2) == [("put", theirs.revision), ("put", mine.revision)]
    async with ada.watch(from_revision=start.revision) as own:
        assert await take(own, 1) == [("put", mine.revision)]


async def test_a_silent_watch_beats_with_the_revision_it_came_to(
    channel: grpc.aio.Channel, ada: Caller
) -> None:
    made = await ada.register("a")
    async with ada.watch(from_revision=made.revision) as call:
        assert told(await read(call)) == ("heartbeat", made.revision)
        theirs = await Caller(channel, tenant="other").register("b")
        async with asyncio.timeout(30):
            while told(await read(call)) != ("heartbeat", theirs.revision):
                pass
    mine = await ada.move("a", READY)
    async with ada.watch(from_revision=theirs.revision) as call:
        assert await take(call, 1) == [("put", mine.revision)]


async def test_a_revision_that_is_not_there_yet_is_refused(ada: Caller) -> None:
    made = await ada.register("a")
    async with ada.watch(from_revision=made.revision + 1) as call:
        with refused(OUT_OF_RANGE, "REVISION_IN_FUTURE", latest=str(made.revision)):
            await take(call, 1)


async def test_history_that_is_no_longer_kept_is_refused(config: Config) -> None:
    key = Key("acme", "environments/a")

    def change(_: Record | None, revision: int) -> Outcome:
        document = pb.Environment(name=key.name, revision=revision).SerializeToString()
        record = Record(*key, "uid", 1, 1, 0, 0, revision, document)
        return Outcome(response=b"", put=record)

    retention = Retention(changes=3)
    async with open_store(config.database, retention=retention) as store:
        for _ in range(10):
            await store.write(key, change)
        await store.sweep()
    async with (
        registry(config) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        ada = Caller(channel)
        async with ada.watch(from_revision=6) as call:
            with refused(OUT_OF_RANGE, "REVISION_COMPACTED", oldest="7"):
                await take(call, 1)
        async with ada.watch(from_revision=7) as call:
            assert await take(call, 3) == [("put", 8), ("put", 9), ("put", 10)]


async def test_a_reader_that_stalls_is_cut_off_and_can_resume(ada: Caller) -> None:
    made = await ada.register("a")
    seen = made.revision
    async with ada.watch(from_revision=seen) as call:
        assert told(await read(call)) == ("heartbeat", seen)
        for number in range(30):  # More than the buffer of all watchers holds.
            big = pb.Environment(name=made.name, annotations={"x": f"{number:03}" * 300_000})
            last = await ada.update(big, "annotations")
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCHER_TOO_SLOW"):
            while True:
                assert await take(call, 1) == [("put", seen + 1)]
                seen += 1
    assert seen < last.revision
    async with ada.watch(from_revision=seen) as call:
        rest = await take(call, last.revision - seen)
    assert rest == [("put", revision) for revision in range(seen + 1, last.revision + 1)]


async def test_watchers_who_come_at_any_time_see_the_same_end(ada: Caller) -> None:
    for number in range(5):
        await ada.register(f"e{number}")

    async def follow(started: asyncio.Event) -> dict[str, int]:
        """What is there once e0 is gone, by a snapshot and the changes."""
        present: dict[str, int] = {}
        last = 0
        async with ada.watch() as call:
            while not (event := await read(call)).HasField("delete"):
                if event.HasField("snapshot"):
                    present[event.snapshot.name] = event.snapshot.revision
                if event.HasField("snapshot_end"):
                    started.set()
                if event.HasField("put"):
                    assert event.put.revision > last
                    present[event.put.name] = event.put.revision
                last = max(last, told(event)[1])
        return present

    starts: list[asyncio.Event] = []
    watchers: list[asyncio.Task[dict[str, int]]] = []
    for round_ in range(40):
        starts.append(asyncio.Event())
        watchers.append(asyncio.create_task(follow(starts[-1])))
        for number in range(5):
            new = pb.Environment(name=f"environments/e{number}", node=f"n{round_}")
            await ada.update(new, "node")
    await asyncio.gather(*(start.wait() for start in starts))
    await ada.deregister("e0")
    found = await asyncio.gather(*watchers)
    listed = await ada(pb.ListEnvironmentsRequest())
    end = {each.name: each.revision for each in listed.environments}
    for present in found:
        present.pop("environments/e0")
        assert present == end


async def test_a_stop_ends_a_watch_with_a_reason(config: Config) -> None:
    async with grpc.aio.insecure_channel(config.addresses[0]) as channel, AsyncExitStack() as stack:
        async with registry(config):
            ada = Caller(channel)
            await ada.register("a")
            call = await stack.enter_async_context(ada.watch())
            await take(call, 2)
        with refused(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"):
            await take(call, 1)
