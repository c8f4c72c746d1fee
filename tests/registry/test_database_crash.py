"""kill -9 of PostgreSQL under writes through two registries: what was told stays told."""

import asyncio
import os
import signal
import uuid
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

import grpc
import pytest

from cove.registry.v1 import registry_pb2 as pb
from services.registry.config import Config
from tests.registry.caller import Caller, register
from tests.registry.postgres import running
from tests.registry.replicas import replicas

WRITERS: Final = 8
WRITES: Final = 60
ROUNDS: Final = int(os.environ.get("COVE_DATABASE_KILLS", "20"))


class Load:
    """Registers under new ids through one registry, each until it is acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, pb.Environment] = {}
        self.refused = asyncio.Event()
        self.target = 0
        self.enough = asyncio.Event()

    async def write(self, caller: Caller) -> None:
        while True:
            request = register(f"e-{uuid.uuid4()}", request_id=str(uuid.uuid4()))
            while True:
                try:
                    answer = await caller(request)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    self.refused.set()
                    await asyncio.sleep(0.02)
                else:
                    break
            assert answer.environment.name not in self.acknowledged
            self.acknowledged[answer.environment.name] = answer.environment
            if len(self.acknowledged) >= self.target:
                self.enough.set()

    async def more(self, count: int) -> None:
        """Returns when so many more are acknowledged."""
        self.target = len(self.acknowledged) + count
        self.enough.clear()
        await self.enough.wait()

    async def refusal(self) -> None:
        """Returns when a write was refused."""
        self.refused.clear()
        await self.refused.wait()


async def follow(caller: Caller, seen: list[tuple[int, str]]) -> None:
    """Note each change from the first on, over whatever ends the watch."""
    while True:
        with suppress(grpc.aio.AioRpcError):
            async with caller.watch(from_revision=seen[-1][0], tenant="-") as call:
                while isinstance(event := await call.read(), pb.WatchEnvironmentsResponse):
                    if event.HasField("put"):
                        seen.append((event.put.revision, event.put.name))
        await asyncio.sleep(0.02)


async def crash(folder: Path, rounds: int) -> None:
    with running(fsync=True) as server:
        config = Config(
            state=folder,
            runtime=folder,
            database=server.fresh(),
            shutdown_grace=timedelta(seconds=1),
        )
        async with replicas(config, folder) as callers:
            first = await callers[0].register("first")
            views = [[(first.revision, first.name)] for _ in callers]
            load = Load()
            tasks = [
                asyncio.create_task(load.write(callers[number % 2])) for number in range(WRITERS)
            ]
            tasks += [
                asyncio.create_task(follow(caller, seen))
                for caller, seen in zip(callers, views, strict=True)
            ]
            async with asyncio.timeout(60 + 20 * rounds):
                for _ in range(rounds):
                    await load.more(WRITES)
                    # In a thread, so that the registries go on without it.
                    await asyncio.to_thread(server.stop, signal.SIGKILL)
                    await load.refusal()
                    await asyncio.to_thread(server.start)
                await load.more(WRITES)
                for task in tasks[:WRITERS]:
                    task.cancel()
                await asyncio.gather(*tasks[:WRITERS], return_exceptions=True)
                last = await callers[0].register("last")
                while any(seen[-1][0] < last.revision for seen in views):
                    await asyncio.wait(tasks[WRITERS:], timeout=0.02)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            stored = {each.name: each for caller in callers for each in await everything(caller)}
    assert load.acknowledged.items() <= stored.items()
    # Writes that were going on when the writers stopped may come behind the last one.
    one, two = (seen[: last.revision] for seen in views)
    assert [revision for revision, _ in one] == list(range(1, last.revision + 1))
    assert one == two
    early = {each.name for each in stored.values() if each.revision <= last.revision}
    assert {name for _, name in one} == early


async def everything(caller: Caller) -> list[pb.Environment]:
    found: list[pb.Environment] = []
    token = ""
    while True:
        page = await caller(pb.ListEnvironmentsRequest(page_size=1000, page_token=token))
        found += page.environments
        if not (token := page.next_page_token):
            return found


@pytest.mark.timeout(180)
async def test_a_crash_of_the_database_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    await crash(tmp_path, 1)


@pytest.mark.long
@pytest.mark.timeout(60 + 30 * ROUNDS)
async def test_many_crashes_of_the_database_lose_nothing(tmp_path: Path) -> None:
    await crash(tmp_path, ROUNDS)
