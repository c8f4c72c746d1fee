"""Several registries on one PostgreSQL: one counter, one history, one truth."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from cove.registry.v1 import registry_pb2 as pb
from services.registry.config import Config
from services.registry.postgres.store import PostgresStore
from services.registry.retention import Retention
from services.registry.store import RequestId, Span
from tests.registry.caller import Clock, claim, refused, register
from tests.registry.postgres import Postgres
from tests.registry.replicas import reached, replicas
from tests.registry.test_store import DEMO, key, put, refuse
from tests.registry.test_watch import READY, read, take, told


@pytest.fixture
def database(url: str) -> str:
    """Of PostgreSQL only: a file has one registry."""
    return url


@pytest.fixture
async def pair(url: str, clock: Clock) -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    async with AsyncExitStack() as stack:
        one, two = [
            await stack.enter_async_context(
                PostgresStore.open(url, now=clock, retention=Retention(changes=1000))
            )
            for _ in range(2)
        ]
        yield one, two


async def test_revisions_of_both_are_one_counter_without_holes(
    pair: tuple[PostgresStore, PostgresStore],
) -> None:
    writes = [
        pair[number % 2].write(key(number), refuse if number % 3 == 0 else put(key(number)))
        for number in range(300)
    ]
    await asyncio.gather(*writes, return_exceptions=True)
    kept = await pair[0].history(0, 1000)
    assert [event.revision for event in kept] == list(range(1, 201))
    for store in pair:
        await reached(store, 200)
        assert await store.feed.after(0, 0) == kept


async def test_a_request_that_is_sent_to_both_has_one_effect(
    pair: tuple[PostgresStore, PostgresStore],
) -> None:
    for number in range(30):
        request = RequestId("acme", "ada", "Rpc", f"id {number}", b"")
        one, two = await asyncio.gather(*(store.write(DEMO, put(DEMO), request) for store in pair))
        assert one == two == b"%d" % (number + 1)
    assert await pair[0].span() == Span(0, 30)


async def test_one_of_many_claims_through_both_wins(
    config: Config, tmp_path: Path, clock: Clock
) -> None:
    async with replicas(config, tmp_path, clock=clock) as callers:
        made = await callers[0].register("demo")
        await callers[1].release("demo", made.fencing_token)
        calls = [callers[number % 2](claim("demo", f"h{number}")) for number in range(200)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        won = [answer for answer in answers if isinstance(answer, pb.ClaimOperationResponse)]
        assert len(won) == 1
        for caller in callers:
            assert await caller.get("demo") == won[0].environment
        clock.move(31)
        taken = await callers[1].claim("demo", "later")
        with refused(grpc.StatusCode.ABORTED, "LEASE_LOST"):
            await callers[0].renew("demo", won[0].environment.fencing_token)
        assert (await callers[0].renew("demo", taken.fencing_token)).operation_holder == "later"


async def test_a_list_goes_on_at_the_other_registry(config: Config, tmp_path: Path) -> None:
    async with replicas(config, tmp_path) as callers:
        made = [(await callers[0].register(f"e{number}")).name for number in range(5)]
        found, token = [], ""
        for number in range(5):
            request = pb.ListEnvironmentsRequest(page_size=1, page_token=token)
            page = await callers[number % 2](request)
            found += [each.name for each in page.environments]
            token = page.next_page_token
        assert (found, token) == (made, "")


async def test_a_watcher_that_changes_registries_misses_nothing(
    config: Config, tmp_path: Path
) -> None:
    async with replicas(config, tmp_path) as callers:
        made = await callers[0].register("e")
        seen = [made.revision]

        async def write() -> int:
            for number in range(100):
                new = pb.Environment(name=made.name, node=f"n{number}")
                last = await callers[number % 2].update(new, "node")
            return last.revision

        writing = asyncio.create_task(write())
        for turn in range(1000):
            async with callers[turn % 2].watch(from_revision=seen[-1]) as call:
                seen += [revision for kind, revision in await take(call, 4) if kind == "put"]
            if len(seen) > 98:
                break
        last = await writing
        async with callers[0].watch(from_revision=seen[-1]) as call:
            seen += [revision for _, revision in await take(call, last - seen[-1])]
        assert seen == list(range(1, last + 1))


async def test_a_snapshot_is_as_new_as_the_last_answer_of_any(
    config: Config, tmp_path: Path
) -> None:
    async with replicas(config, tmp_path) as callers:
        for number in range(20):
            made = await callers[number % 2].register(f"e{number}")
            async with callers[(number + 1) % 2].watch() as call:
                names = [
                    event.snapshot.name for event in [await read(call) for _ in range(number + 1)]
                ]
                assert made.name in names
                assert told(await read(call)) == ("snapshot_end", made.revision)
                moved = await callers[number % 2].move(f"e{number}", READY)
                assert await take(call, 1) == [("put", moved.revision)]


async def test_lost_notifications_are_made_up_for(
    pair: tuple[PostgresStore, PostgresStore], postgres: Postgres
) -> None:
    """The listening connections are ended again and again while both write."""
    one, two = pair
    for number in range(5):
        while not postgres.sql(  # noqa: ASYNC110 - it is another process that is waited for.
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'cove-registry listener'"
        ):
            await asyncio.sleep(0.01)  # Until one has come back.
        writes = (
            store.write(key(each), put(key(each), b"%d" % number))
            for each in range(20)
            for store in pair
        )
        await asyncio.gather(*writes)
    await asyncio.gather(reached(one, 200), reached(two, 200))
    kept = await one.history(0, 1000)
    assert [event.revision for event in kept] == list(range(1, 201))
    assert await one.feed.after(0, 0) == await two.feed.after(0, 0) == kept


async def test_both_sweep_at_once(pair: tuple[PostgresStore, PostgresStore], clock: Clock) -> None:
    for number in range(50):
        await pair[number % 2].write(
            key(number), put(key(number)), RequestId("a", "b", "c", f"{number}", b"")
        )
    clock.move(24 * 3600 + 1)
    swept = await asyncio.gather(*(store.sweep() for store in pair * 3))
    assert sum(swept) == 100
    assert await pair[0].span() == Span(50, 50)


async def test_who_reads_no_further_keeps_nobody_from_a_snapshot(url: str) -> None:
    """Each holds a connection; more than there are for it stall, of one tenant and of others."""
    async with PostgresStore.open(url) as store, AsyncExitStack() as stalled:
        await store.write(DEMO, put(DEMO))
        for number in range(14):  # Held for no time at all, and not read.
            await stalled.enter_async_context(store.snapshot(f"t{number % 2}", limit=0))
        for _ in range(3):
            await stalled.enter_async_context(store.snapshot("acme"))

        async def fourth() -> list[str]:
            async with store.snapshot("acme") as snapshot:
                return [each.name for each in await snapshot.page(None)]

        waiting = asyncio.create_task(fourth())
        async with asyncio.timeout(60), store.snapshot("other") as snapshot:
            assert await snapshot.page(None) == []
            assert not waiting.done()
        await stalled.aclose()
        assert await waiting == [DEMO.name]


async def test_what_goes_to_the_database_at_once_has_room_in_one_message(url: str) -> None:
    """Of a MiB each 400 had none: it cut the connection, and all of them were refused."""
    sizes: list[int] = []

    def observe(writes: int, seconds: float, *, failed: bool) -> None:
        sizes.append(writes)

    async with PostgresStore.open(url, observe=observe) as store:
        await asyncio.gather(*(store.write(key(n), put(key(n))) for n in range(200)))
    assert sum(sizes) == 200
    assert max(sizes) == 64


async def test_time_is_the_databases(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry on a machine whose clock is wrong gives leases as the others do."""
    async with PostgresStore.open(url) as store:
        monkeypatch.setattr("time.time_ns", lambda: 0)
        times = []

        def note(_: object, revision: int) -> object:
            times.append(store.now())
            return put(DEMO)(None, revision)

        await store.write(DEMO, note)  # type: ignore[arg-type]
        await store.write(DEMO, note)  # type: ignore[arg-type]
    assert 1_700_000_000 * 10**9 < times[0] < times[1]


async def test_registering_the_same_id_at_both_makes_one(config: Config, tmp_path: Path) -> None:
    async with replicas(config, tmp_path) as callers:
        for number in range(20):
            answers = await asyncio.gather(
                *(caller(register(f"e{number}")) for caller in callers), return_exceptions=True
            )
            assert sum(isinstance(each, pb.RegisterEnvironmentResponse) for each in answers) == 1
            with refused(grpc.StatusCode.ALREADY_EXISTS, "ENVIRONMENT_EXISTS"):
                raise next(each for each in answers if isinstance(each, BaseException))
