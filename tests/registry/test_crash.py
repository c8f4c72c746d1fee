"""kill -9 of the real process, under load: what was told stays told."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest

from cove.registry.v1 import registry_pb2 as pb
from tests.registry.caller import Caller, register

ROUNDS = 2
WRITERS = 16
WRITES_A_ROUND = 300


class EndedAtOnce(Exception):
    """The registry could not start, say as its database is away."""


@asynccontextmanager
async def process(
    folder: Path, database: str = ""
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The registry as a process of its own, and its address."""
    env = {
        **os.environ,
        "COVE_STATE": str(folder / "s"),
        "COVE_RUNTIME": str(folder / "r"),
        "COVE_REGISTRY__LOG_LEVEL": "warning",
    }
    if database:
        env["COVE_REGISTRY__DATABASE"] = database
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.registry", env=env, stdout=subprocess.PIPE
    )
    assert server.stdout
    try:
        async with asyncio.timeout(60):
            line = await server.stdout.readline()
            if not line:
                raise EndedAtOnce(f"status {await server.wait()}")
            ready = json.loads(line)
        yield server, ready["addresses"][0]
    finally:
        with suppress(ProcessLookupError):
            server.kill()
        await server.wait()
        server._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001


def connect(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])


class Load:
    """Registers under new ids until the registry dies."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, pb.Environment] = {}
        self.unanswered: list[pb.RegisterEnvironmentRequest] = []
        self.enough = asyncio.Event()

    async def write(self, ada: Caller, target: int) -> None:
        while True:
            request = register(f"e-{uuid.uuid4()}", request_id=str(uuid.uuid4()))
            try:
                answer = await ada(request)
            except grpc.aio.AioRpcError:  # The registry is gone: the answer, if any, is lost.
                self.unanswered.append(request)
                return
            self.acknowledged[answer.environment.name] = answer.environment
            if len(self.acknowledged) >= target:
                self.enough.set()


async def follow(ada: Caller, revisions: list[int]) -> None:
    """Note each revision, from the last one noted on, until the registry dies."""
    with suppress(grpc.aio.AioRpcError):
        async with ada.watch(from_revision=revisions[-1], tenant="-") as call:
            while isinstance(event := await call.read(), pb.WatchEnvironmentsResponse):
                if event.HasField("put"):
                    revisions.append(event.put.revision)


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_kill_9_under_load_loses_nothing_that_was_acknowledged(
    tmp_path: Path, database: str
) -> None:
    load = Load()
    async with process(tmp_path, database) as (_, address), connect(address) as channel:
        revisions = [(await Caller(channel).register("first")).revision]
    for round_ in range(ROUNDS):
        async with process(tmp_path, database) as (server, address), connect(address) as channel:
            ada = Caller(channel)
            await everything_is_there(ada, load)
            load.enough.clear()
            target = (round_ + 1) * WRITES_A_ROUND
            tasks = [asyncio.create_task(load.write(ada, target)) for _ in range(WRITERS)]
            tasks.append(asyncio.create_task(follow(ada, revisions)))
            async with asyncio.timeout(60):
                await load.enough.wait()
            server.send_signal(signal.SIGKILL)
            await asyncio.gather(*tasks)
    async with process(tmp_path, database) as (_, address), connect(address) as channel:
        ada = Caller(channel)
        await everything_is_there(ada, load)
        last = await ada.register("last")
        task = asyncio.create_task(follow(ada, revisions))
        async with asyncio.timeout(30), ada.watch(revisions[-1], tenant="-") as call:
            while isinstance(event := await call.read(), pb.WatchEnvironmentsResponse):
                if event.put.revision == last.revision:
                    break
        async with asyncio.timeout(30):
            while revisions[-1] < last.revision:
                await asyncio.wait([task], timeout=0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert revisions == list(range(1, last.revision + 1))


async def everything_is_there(ada: Caller, load: Load) -> None:
    """What was acknowledged is unchanged, and what was not can be sent again."""
    found: dict[str, pb.Environment] = {}
    token = ""
    while True:
        page = await ada(pb.ListEnvironmentsRequest(page_size=1000, page_token=token))
        found |= {each.name: each for each in page.environments}
        token = page.next_page_token
        if not token:
            break
    assert load.acknowledged.items() <= found.items()
    for request in load.unanswered:
        answer = await ada(request)
        name = answer.environment.name
        assert found.get(name, answer.environment) == answer.environment
        load.acknowledged[name] = answer.environment
    load.unanswered.clear()


async def test_a_bad_variable_ends_the_start_with_status_2(tmp_path: Path) -> None:
    env = {**os.environ, "COVE_STATE": str(tmp_path), "COVE_RUNTIME": str(tmp_path)}
    env |= {"COVE_REGISTRY__HISTORY": "long", "COVE_REGISTRY__NONE": "1"}
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.registry", env=env, stderr=subprocess.PIPE
    )
    _, err = await server.communicate()
    assert server.returncode == 2
    assert b"COVE_REGISTRY__HISTORY" in err
    assert b"COVE_REGISTRY__NONE" in err
