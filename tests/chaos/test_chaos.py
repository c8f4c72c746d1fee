"""Twenty clients, and everything that may go wrong: what they were told is so, and nothing else."""

import asyncio
import os
import secrets
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
import pytest
from google.protobuf.message import Message

from cove import status
from cove.client import Client
from cove.registry.v1 import registry_pb2 as pb
from cove.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tests.chaos import checks, left
from tests.chaos.customer import PATIENCE, Customer, Shared
from tests.chaos.harm import Harm
from tests.chaos.journal import Fate, Held, of_all
from tests.chaos.standing import Standing, standing
from tests.chaos.watchers import OfEnvironments, OfWorkspaces
from tests.registry.postgres import Postgres, running
from tests.support.repository import make_repository
from tests.support.suite import until

T = TypeVar("T")

SEED: Final = os.environ.get("COVE_CHAOS_SEED") or secrets.token_hex(4)
SECONDS: Final = float(os.environ.get("COVE_CHAOS_SECONDS", "60"))
FEW_SECONDS: Final = float(os.environ.get("COVE_CHAOS_TEST_SECONDS", "25"))
CLIENTS: Final = 20
AT_A_TIME: Final = 4
"""Workspaces that are checked, and deleted, at a time when all is over."""
GRACE: Final = 2
SETTLED: Final = 90.0
"""Seconds after the storm in which all must have come to rest."""
ENV: Final = {
    "COVE_GATEWAY__LEASE": "4",
    "COVE_GATEWAY__RECONCILE_INTERVAL": "1",
    "COVE_GATEWAY__ORPHAN_GRACE": str(GRACE),
}


async def records(standing: Standing) -> list[pb.Environment]:
    """All that the registry has."""
    found: list[pb.Environment] = []
    async with grpc.aio.insecure_channel(standing.suite.address("registry")) as channel:
        request = pb.ListEnvironmentsRequest(tenant="-", page_size=1000)
        while True:
            page = await RegistryServiceStub(channel).ListEnvironments(
                request, wait_for_ready=True, timeout=30
            )
            found += page.environments
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token


class Storm:
    """A suite, its clients, and those who watch."""

    def __init__(self, where: Standing, origins: list[str], seed: str) -> None:
        self.where = where
        shared = Shared([f"shared-{number}" for number in range(3)])
        self.token = where.suite.token
        self.customers = [
            Customer(f"c{n}", where.wire.address, self.token, origins, shared, f"{seed}/{n}")
            for n in range(CLIENTS)
        ]
        self.journals = [each.journal for each in self.customers]
        self.harm = Harm(where, f"{seed}/harm", lambda: sum(each.told for each in self.journals))
        self.workspaces, self.environments = OfWorkspaces(), OfEnvironments()

    async def rage(self, seconds: float) -> list[str]:
        """Returns what is wrong, after all."""
        async with Client(self.where.wire.address, self.token, patience=PATIENCE) as watcher:
            watching = [
                asyncio.create_task(self.workspaces.follow(watcher)),
                asyncio.create_task(
                    self.environments.follow(lambda: self.where.suite.address("registry"))
                ),
            ]
            try:
                await self._live(seconds)
                return await self._checked(watching)
            finally:
                for each in watching:
                    each.cancel()
                await asyncio.gather(*watching, return_exceptions=True)

    async def _live(self, seconds: float) -> None:
        leave = asyncio.Event()
        living = [asyncio.create_task(each.live(leave)) for each in self.customers]
        try:
            await self.harm.go_on(seconds)
            leave.set()
            await asyncio.gather(*living)
        finally:
            for each in living:
                each.cancel()
            await asyncio.gather(*living, return_exceptions=True)

    async def _checked(self, watching: list["asyncio.Task[None]"]) -> list[str]:
        wrong = [surprise for journal in self.journals for surprise in journal.surprises]
        wrong += await self._never_quiet()
        wrong += await asyncio.to_thread(checks.broken_repositories, self.where.suite.state)
        wrong += await self._views()
        async with self.where.suite.client(patience=60) as client:
            checking = [self._wrong_with(each, client) for each in of_all(self.journals)]
            wrong += [told for found in await _some_at_a_time(checking) for told in found]
            left_ = [each async for each in client.workspaces.list(show_deleted=True)]
            await _some_at_a_time(each.delete(force=True, allow_missing=True) for each in left_)
        wrong += await self._never_quiet()
        wrong += [f"{each.name} is left" for each in await records(self.where)]
        wrong += await self._views()
        wrong += [f"a watcher ended: {each.exception()}" for each in watching if each.done()]
        return [*wrong, *self.workspaces.wrong, *self.environments.wrong]

    async def _wrong_with(self, held: Held, client: Client) -> list[str]:
        """A machine that is too busy to answer in time is asked once more."""
        try:
            return await checks.wrong_with(held, client, self.where.suite.state)
        except status.DeadlineExceeded:
            return await checks.wrong_with(held, client, self.where.suite.state)

    async def _never_quiet(self) -> list[str]:
        """What is still under way, or left over, when all should have come to rest."""
        wrong: list[str] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLED):
                while wrong := await self._unrest():  # noqa: ASYNC110 - nobody tells of it.
                    await asyncio.sleep(0.5)
        return wrong

    async def _unrest(self) -> list[str]:
        found = await records(self.where)
        known = {each.uid for each in found}
        suite, ever = self.where.suite, self.environments.uids
        over = await asyncio.to_thread(left.left_over, suite.state, suite.runtime, ever, known)
        return [*checks.half_there(found), *(f"left over: {each}" for each in sorted(over))]

    async def _views(self) -> list[str]:
        """Where those who watch see something else than a list shows, also after a while: of what
        was removed no list says the revision."""
        wrong: list[str] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(30):
                while wrong := await self._otherwise():  # noqa: ASYNC110 - nobody tells of it.
                    await asyncio.sleep(0.2)
        return wrong

    async def _otherwise(self) -> list[str]:
        found = {each.name: each for each in await records(self.where)}
        async with self.where.suite.client() as client:
            listed = {
                each.name: each.message async for each in client.workspaces.list(show_deleted=True)
            }
        wrong = []
        if found != self.environments.view:
            wrong.append(f"registry's watch differs: {_differing(found, self.environments.view)}")
        if listed != self.workspaces.view:
            wrong.append(f"gateway's watch differs: {_differing(listed, self.workspaces.view)}")
        return wrong


async def _some_at_a_time(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What each of them gives, in order."""
    places = asyncio.Semaphore(AT_A_TIME)

    async def one(each: Coroutine[Any, Any, T]) -> T:
        async with places:
            return await each

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(each)) for each in work]
    return [each.result() for each in tasks]


def _differing(these: Mapping[str, Message], those: Mapping[str, Message]) -> list[str]:
    every = these.keys() | those.keys()
    return sorted(name for name in every if these.get(name) != those.get(name))


async def rage(folder: Path, seconds: float, database: Postgres | None = None) -> None:
    if not seconds:
        pytest.skip("no storm was asked for: CHAOS_SECONDS, CHAOS_TEST_SECONDS")
    origins = []
    for number in range(2):
        made = folder / f"origin-{number}"
        make_repository(made, {f"d{each}/f": f"{number} {each}\n" for each in range(40)})
        origins.append(f"file://{made}")
    async with standing(folder, ENV, database) as where:
        storm = Storm(where, origins, SEED)
        wrong: list[str] = ["it was not checked"]
        try:
            wrong = await storm.rage(seconds)
        finally:
            told = sum(each.told for each in storm.journals)
            fates = {fate.name: len([*of_all(storm.journals, fate)]) for fate in Fate}
            print(f"seed {SEED}, {seconds} s: {dict(storm.harm.done)}, {told} results, {fates}")  # noqa: T201
            if wrong:
                print(where.keep_logs(folder / "logs"))  # noqa: T201
                print(f"all logs: {folder / 'logs'}")  # noqa: T201
                for name, past in storm.environments.past.items():
                    if any(f"{name.rpartition('/')[2]}:" in each for each in wrong):
                        print(name, *past, sep="\n  ")  # noqa: T201
                store = "postgresql" if database else "sqlite"
                sizes = f"CHAOS_SECONDS={seconds:g} LONG='-k on_{store}'"
                print(f"again: COVE_CHAOS_SEED={SEED} make test-long {sizes}")  # noqa: T201
        assert not wrong, "\n".join(wrong[:100])
        runtime = where.suite.runtime
    await until(lambda: not left.of_a_suite(runtime), f"{left.of_a_suite(runtime)} is gone")


@pytest.mark.timeout(600)
async def test_a_short_storm(tmp_path: Path) -> None:
    await rage(tmp_path, FEW_SECONDS)


@pytest.mark.long
@pytest.mark.timeout(3000)
async def test_a_storm_on_sqlite(tmp_path: Path) -> None:
    await rage(tmp_path, SECONDS)


@pytest.mark.long
@pytest.mark.timeout(3000)
async def test_a_storm_on_postgresql(tmp_path: Path) -> None:
    with running() as database:
        await rage(tmp_path, SECONDS, database)
