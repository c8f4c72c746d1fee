"""ListEnvironments: filtered, ordered, in pages that stay right while others write."""

import random
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

import grpc
import pytest

from cove.registry.v1 import registry_pb2 as pb
from servicekit.filters.filters import Filter
from services.registry.fields import FIELDS
from services.registry.lists import Listing, listing_order, page
from services.registry.sqlite import SqliteStore
from services.registry.store import Change, Key, Outcome, Place, Record, Write
from tests.registry.caller import Caller, Clock, refused
from tests.registry.stores import AnyStore, open_store

INVALID: Final = grpc.StatusCode.INVALID_ARGUMENT
State = pb.Environment.State
ORDERS: Final = (
    *("", "name", "name desc", "create_time", "create_time desc", "update_time", "state"),
    *("update_time desc", "state desc", "create_time desc, name", "create_time, name desc"),
    *("state desc, name", "state, name desc", "update_time, name"),
)


async def listed(ada: Caller, **fields: Any) -> list[str]:
    """The ids of a whole list, in its order."""
    request = pb.ListEnvironmentsRequest(**fields)
    found: list[str] = []
    while True:
        answer = await ada(request)
        found += [each.name.removeprefix("environments/") for each in answer.environments]
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token


@pytest.fixture
async def several(ada: Caller, clock: Clock) -> list[pb.Environment]:
    """Of two teams, in three states, two of them made at the same time."""
    made = []
    for number, name in enumerate(("c", "a", "e", "b", "d")):
        team = "web" if number % 2 else "data"
        made.append(await ada.register(name, environment=pb.Environment(labels={"team": team})))
        if number != 2:
            clock.move(1)
    await ada.move("a", State.STATE_READY)
    await ada.move("d", State.STATE_READY)
    clock.move(1)
    await ada.move("b", State.STATE_FAILED)
    return [await ada.get(name) for name in "abcde"]


def sorted_by(environments: list[pb.Environment], order: str) -> list[str]:
    """What a list has to be, made the other way: by sorting in memory."""
    terms = [each.split() for each in (order or "name").split(",")]
    if len(terms) == 1 and terms[0][0] != "name":
        terms.append(["name", *terms[0][1:]])
    found = list(environments)
    for field, *direction in reversed(terms):
        found.sort(key=lambda each: _key(each, field), reverse=direction == ["desc"])
    return [each.name.removeprefix("environments/") for each in found]


def _key(environment: pb.Environment, field: str) -> Any:
    value = getattr(environment, field)
    return value.ToNanoseconds() if field.endswith("_time") else value


@pytest.mark.parametrize("size", [1, 2, 100])
async def test_every_order_is_the_same_in_pages_of_any_size(
    ada: Caller, several: list[pb.Environment], size: int
) -> None:
    for order in ORDERS:
        found = await listed(ada, order_by=order, page_size=size)
        assert found == sorted_by(several, order), order


@pytest.mark.parametrize(
    ("filter_", "found"),
    [
        ("labels.team = web", "ab"),
        ("state = READY", "ad"),
        ("state = READY OR state = FAILED", "abd"),
        ("state != PENDING AND labels.team = data", "d"),
        ("name >= b AND name < d", "bc"),
        ('name = "environments/*"', "abcde"),
        ("state = DELETED", ""),
        ("create_time > 2100-01-01T00:00:00Z", ""),
    ],
)
async def test_a_filter_selects_in_every_order(
    ada: Caller, several: list[pb.Environment], filter_: str, found: str
) -> None:
    for order in ORDERS:
        of_order = sorted_by([each for each in several if each.name[-1] in found], order)
        assert await listed(ada, filter=filter_, order_by=order, page_size=2) == of_order, order


async def test_states_and_a_filter_hold_both(ada: Caller, several: list[pb.Environment]) -> None:
    states = [State.STATE_READY, State.STATE_FAILED]
    assert await listed(ada, states=states, filter="labels.team = web") == ["a", "b"]
    assert await listed(ada, states=states, filter="state = PENDING") == []
    assert await listed(ada, states=states, order_by="create_time desc") == ["d", "b", "a"]
    assert await listed(ada, states=states, order_by="state desc") == ["b", "d", "a"]
    assert await listed(ada, states=states, tenant="-", page_size=1) == ["a", "b", "d"]


async def test_a_token_is_good_for_its_list_alone(
    ada: Caller, several: list[pb.Environment]
) -> None:
    first = await ada(pb.ListEnvironmentsRequest(page_size=1, filter="state = READY"))
    for other in (
        pb.ListEnvironmentsRequest(filter="state=READY"),
        pb.ListEnvironmentsRequest(filter="state = READY", order_by="name"),
        pb.ListEnvironmentsRequest(),
    ):
        other.page_token = first.next_page_token
        with refused(INVALID, "PAGE_TOKEN_INVALID"):
            await ada(other)


async def test_what_is_wrong_is_told(ada: Caller) -> None:
    with refused(INVALID, "FILTER_INVALID", position="1", found="nope"):
        await ada(pb.ListEnvironmentsRequest(filter="nope = 1"))
    with refused(INVALID, "FILTER_INVALID", position="8"):
        async with ada.watch(filter="name = ") as call:
            await call.read()
    for order in ("nope", "name, name", "name, state", "state, create_time", "state, name, uid"):
        with refused(INVALID, "ORDER_INVALID"):
            await ada(pb.ListEnvironmentsRequest(order_by=order))
    with refused(INVALID, "ORDER_INVALID"):
        await ada(pb.ListEnvironmentsRequest(order_by="state", tenant="-"))
    assert await listed(ada, order_by="name desc", tenant="-") == []


async def test_what_exists_during_the_whole_listing_comes_once_whatever_is_written(
    ada: Caller, clock: Clock
) -> None:
    """In orders that no write changes: by name and by the time of the making."""
    chance = random.Random(5)
    for order in ("name", "name desc", "create_time", "create_time desc, name"):
        tag = order.replace(" ", "").replace("_", "").replace(",", "")
        kept = {f"{tag}-keep{number}" for number in range(20)}
        for name in sorted(kept, key=lambda _: chance.random()):
            await ada.register(name)
            clock.move(1)
        request = pb.ListEnvironmentsRequest(order_by=order, page_size=3, filter=f'name="{tag}-*"')
        found: list[str] = []
        for number in range(1000):
            answer = await ada(request)
            found += [each.name.removeprefix("environments/") for each in answer.environments]
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
            await ada.register(f"{tag}-new{number}")
            await ada.update(
                pb.Environment(
                    name=f"environments/{chance.choice(sorted(kept))}", node=str(number)
                ),
                "node",
            )
            if number % 2:
                await ada.deregister(f"{tag}-new{number - 1}")
        assert sorted(each for each in found if each in kept) == sorted(kept)
        assert len(found) == len(set(found))


# A page among many, at the store.


def put(key: Key, environment: pb.Environment) -> Change:
    def change(_: Record | None, revision: int) -> Outcome:
        record = Record(
            *key, environment.uid, environment.state, 1, 0, 0, revision,
            environment.SerializeToString(), revision, revision,
        )  # fmt: skip
        return Outcome(response=b"", put=record)

    return change


@pytest.fixture
async def many(database: str) -> AsyncIterator[AnyStore]:
    """5000, of which one is of team `rare` and one is FAILED."""
    async with open_store(database) as store:
        writes = []
        for number in range(5000):
            environment = pb.Environment(
                name=f"environments/e{number:05}",
                uid=str(number),
                state=State.STATE_FAILED if number == 4321 else State.STATE_READY,
                labels={"team": "rare" if number == 4444 else "web"},
            )
            key = Key("acme", environment.name)
            writes.append((key, put(key, environment)))
        await store.write_all([Write(*each) for each in writes], lambda _: b"")
        yield store


def listing(filter_: str, order: str = "") -> Listing:
    return Listing(
        tenant="acme",
        filter=Filter(filter_, FIELDS),
        states=frozenset(),
        order=listing_order(order, all_tenants=False),
    )


async def test_a_page_of_a_rare_filter_is_bounded_in_work(many: AnyStore) -> None:
    """It ends early, with a token, and the pages come to an end all the same."""
    for order in ("", "name desc", "create_time", "state desc"):
        rare, place, pages, found = listing("labels.team = rare", order), None, 0, []
        while True:
            read, place = await page(many, rare, place, 100)
            found += read
            pages += 1
            if place is None:
                break
        assert len(found) == 1
        assert pages == 3


async def test_a_rare_state_is_found_at_once(many: AnyStore) -> None:
    for order in ("", "name desc", "state"):
        read, place = await page(many, listing("state = FAILED", order), None, 100)
        assert len(read) == 1
        assert place is None


async def test_few_states_in_the_order_of_a_time_are_looked_for_many_at_a_time(
    many: AnyStore,
) -> None:
    """However few the page is to have: each look is a way to the database and back."""
    if not isinstance(many, SqliteStore):
        return  # It asks the same, and nobody sees it.
    asked: list[str] = []
    many._reading.set_trace_callback(asked.append)  # noqa: SLF001
    failed = replace(listing("", "create_time"), states=frozenset({State.STATE_FAILED}))
    read, place = await page(many, failed, None, 1)
    many._reading.set_trace_callback(None)  # noqa: SLF001
    assert (read, place is None) == ([], False)
    assert len(asked) < 40


async def test_no_list_sorts_or_looks_through_a_table(many: AnyStore, database: str) -> None:
    """Every statement that a list can make goes along an index."""
    if not isinstance(many, SqliteStore):
        return  # Which way PostgreSQL takes depends on what it has counted.
    asked: list[str] = []
    many._reading.set_trace_callback(asked.append)  # noqa: SLF001
    place = Place("acme", "environments/e00100", 100)
    for order in ORDERS:
        for filter_ in ("", "state = FAILED", "state != DELETED"):
            for after in (None, place):
                await page(many, listing(filter_, order), after, 2)
    many._reading.set_trace_callback(None)  # noqa: SLF001
    db = sqlite3.connect(database)
    for query in dict.fromkeys(asked):
        for *_, step in db.execute(f"EXPLAIN QUERY PLAN {query}"):
            assert "SCAN environment" not in step or "USING INDEX" in step, query
            if "UNION" not in query:
                assert "TEMP B-TREE FOR ORDER BY" not in step, query
    db.close()
