"""A watch of a selection: what leaves it is told as gone, across every resumption."""

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

import grpc
import pytest

from cove.registry.v1 import registry_pb2 as pb
from servicekit.filters.filters import Filter
from services.registry.app import registry
from services.registry.config import Config
from services.registry.feed import Event
from services.registry.fields import FIELDS
from services.registry.retention import Retention
from services.registry.store import Key, Outcome, Record
from services.registry.watch import SnapshotEnd, watch
from tests.registry.caller import Caller, Clock
from tests.registry.stores import AnyStore, open_store

State = pb.Environment.State
WEB: Final = "labels.team = web"


async def change(call: Any) -> Any:
    """The next event that is no heartbeat."""
    while (event := await call.read()).HasField("heartbeat"):
        pass
    return event


def kind(event: Any) -> tuple[str, str]:
    name = event.WhichOneof("event")
    return name, getattr(event, name).name.removeprefix("environments/")


def team(name: str, value: str) -> pb.Environment:
    return pb.Environment(name=f"environments/{name}", labels={"team": value})


async def test_what_leaves_the_selection_is_told_as_gone(ada: Caller) -> None:
    await ada.register("one", environment=team("", "web"))
    await ada.register("two", environment=team("", "data"))
    async with ada.watch(filter=WEB) as call:
        first, end = await change(call), await change(call)
        assert kind(first) == ("snapshot", "one")
        await ada.update(team("two", "other"), "labels")  # Out before and after: not told.
        came = await ada.update(team("two", "web"), "labels")
        left = await ada.update(team("one", "data"), "labels")
        await ada.deregister("one")  # It was out already: not told.
        await ada.deregister("two")
        again = await ada.register("one", environment=team("", "web"))
        told = [await change(call) for _ in range(4)]
    assert [kind(each) for each in told] == [
        *(("put", "two"), ("delete", "one"), ("delete", "two"), ("put", "one")),
    ]
    assert told[0].put == came
    assert told[1].delete == pb.WatchEnvironmentsResponse.Delete(
        name=left.name, uid=left.uid, tenant="acme", revision=left.revision
    )
    assert told[3].put == again
    async with ada.watch(end.snapshot_end.revision, filter=WEB) as call:
        assert [await change(call) for _ in range(4)] == told


async def test_a_silent_selection_still_says_how_far_it_is(ada: Caller) -> None:
    async with ada.watch(filter="state = FAILED") as call:
        assert (await change(call)).HasField("snapshot_end")
        made = await ada.register("one")
        event: Any = None
        while event is None or event.heartbeat.revision < made.revision:
            event = await call.read()


class View:
    """What a watcher knows by what it was told."""

    def __init__(self) -> None:
        self.there: dict[str, bytes] = {}
        self.revision = 0

    def tell(self, event: Any) -> None:
        match event.WhichOneof("event"):
            case "snapshot" | "put" as name:
                each = getattr(event, name)
                self.there[each.name] = each.SerializeToString()
                self.revision = each.revision if name == "put" else self.revision
            case "delete":
                self.there.pop(event.delete.name, None)
                self.revision = event.delete.revision
            case "snapshot_end" | "heartbeat" as name:
                self.revision = getattr(event, name).revision


async def test_every_view_is_the_list_at_every_revision_and_over_restarts(
    config: Config, clock: Clock
) -> None:
    """Watchers that began at each revision, some from the memory and some from the disk."""
    chance = random.Random(7)
    selected: list[dict[str, bytes]] = []
    fields: dict[str, Any] = {"filter": WEB, "page_size": 1000}
    for restart in range(3):
        async with (
            registry(config, now=clock) as served,
            grpc.aio.insecure_channel(served.address) as channel,
        ):
            ada = Caller(channel)
            for _ in range(14):
                await _write(ada, chance)
                page = await ada(pb.ListEnvironmentsRequest(**fields))
                selected.append({e.name: e.SerializeToString() for e in page.environments})
            latest = len(selected)
            for begin in range(restart, latest, 4):
                view = View()
                view.there, view.revision = dict(selected[begin]), begin + 1
                async with ada.watch(view.revision, filter=WEB) as call:
                    while view.revision < latest:
                        view.tell(await call.read())
                        assert view.there == selected[view.revision - 1]


async def _write(ada: Caller, chance: random.Random) -> None:
    """One write, whatever it is: exactly one revision."""
    number = chance.randrange(6)
    found = {e.name: e for e in (await ada(pb.ListEnvironmentsRequest())).environments}
    name = f"environments/e{number}"
    if name not in found:
        await ada.register(f"e{number}", environment=team("", chance.choice(("web", "data"))))
    elif chance.random() < 0.3:
        await ada.deregister(f"e{number}")
    else:
        value = chance.choice(("web", "data"))
        if found[name].labels["team"] == value:
            await ada.update(pb.Environment(name=name, node=str(chance.random())), "node")
        else:
            await ada.update(team(f"e{number}", value), "labels")


@pytest.fixture
async def store(database: str, clock: Clock) -> AsyncIterator[AnyStore]:
    retention = Retention(changes=2)
    async with open_store(database, now=clock, retention=retention) as store:
        yield store


async def keep(store: AnyStore, environment: pb.Environment) -> None:
    key = Key("acme", environment.name)

    def put(_: Record | None, revision: int) -> Outcome:
        document = environment.SerializeToString()
        return Outcome(
            response=b"", put=Record(*key, key.name[13:], 1, 1, 0, 0, revision, document)
        )

    await store.write(key, put)


async def test_what_nobody_knows_any_more_is_told_as_gone(store: AnyStore) -> None:
    """What it replaced is swept: better one removal too many than one missed."""
    await keep(store, team("one", "web"))
    for number in range(4):
        await keep(store, team("other", str(number)))
    await keep(store, team("one", "data"))
    await keep(store, team("new", "data"))
    await store.sweep()
    assert await store.history(5, 9) == [
        Event(6, "acme", "environments/one", "one", team("one", "data").SerializeToString(), 1),
        Event(7, "acme", "environments/new", "new", team("new", "data").SerializeToString(), 0),
    ]
    store.feed._events.clear()  # noqa: SLF001 - as after a restart.
    told = watch(store, "acme", 5, timedelta(0), Filter(WEB, FIELDS))
    assert await anext(told) == Event(6, "acme", "environments/one", "one", None, 1)
    await told.aclose()


async def test_a_snapshot_of_few_of_many_lets_others_run(store: AnyStore) -> None:
    for number in range(600):
        await keep(store, team(f"e{number:03}", "rare" if number == 555 else "web"))
    told = watch(store, "acme", 0, timedelta(seconds=9), Filter("labels.team = rare", FIELDS))
    first, second = await anext(told), await anext(told)
    assert first.record.name == "environments/e555"  # type: ignore[union-attr]
    assert second == SnapshotEnd(600)
    await told.aclose()
