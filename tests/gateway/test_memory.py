"""Reads that need not ask the registry: never older than what was written here, never for long."""

import asyncio
import random
from collections.abc import AsyncGenerator

import grpc
import pytest

from cove.gateway.v1 import gateway_pb2 as pb
from cove.registry.v1 import registry_pb2
from cove.registry.v1.registry_pb2 import Environment, WatchEnvironmentsResponse
from cove.registry.v1.registry_pb2_grpc import RegistryServiceStub
from gateway import memory
from gateway.memory import Key, Memory
from servicekit.errors import Unavailable
from tests.gateway.stage import Gateway, Stage, eventually, staged
from tests.gateway.test_watch import DEMO, label
from tests.servicekit.failing import failure

WATCH = "WatchEnvironments"
GET = "GetEnvironment"
KEY = Key("acme", "environments/demo")


async def get(gateway: Gateway, name: str = DEMO) -> pb.Workspace:
    return (await gateway.workspaces.GetWorkspace(pb.GetWorkspaceRequest(name=name))).workspace


async def remembering(stage: Stage, gateway: Gateway) -> None:
    """Until reads are answered without the registry."""

    async def does() -> bool:
        before = stage.registry.calls.count(GET)
        await get(gateway)
        return stage.registry.calls.count(GET) == before

    await eventually(does)


def silent(stage: Stage) -> None:
    """From now on the watch tells nothing, but that it is there: as far behind as one can be."""
    beat = WatchEnvironmentsResponse(heartbeat=WatchEnvironmentsResponse.Heartbeat(revision=1))
    stage.registry.alter(WATCH, lambda _: beat.SerializeToString())


async def behind_its_back(stage: Stage, value: str) -> None:
    environment = registry_pb2.Environment(name="environments/demo", labels={"n": value})
    request = registry_pb2.UpdateEnvironmentRequest(environment=environment)
    request.update_mask.paths.append("labels")
    async with stage.direct("registry") as channel:
        await RegistryServiceStub(channel).UpdateEnvironment(request)


async def test_what_was_read_is_not_asked_for_again(stage: Stage, gateway: Gateway) -> None:
    made = (await gateway.workspaces.CreateWorkspace(stage.create())).workspace
    await remembering(stage, gateway)
    stage.forget()
    listing = pb.ListExecutionsRequest(parent=DEMO)
    for _ in range(10):
        assert (await get(gateway)).uid == made.uid
        await gateway.executions.ListExecutions(listing)
    assert GET not in stage.registry.calls


async def test_what_was_written_here_is_read_here_though_the_watch_is_behind(
    stage: Stage, gateway: Gateway
) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    await remembering(stage, gateway)
    silent(stage)
    for number in range(10):
        written = await label(gateway, str(number))
        assert await get(gateway) == written
    await gateway.workspaces.DeleteWorkspace(pb.DeleteWorkspaceRequest(name=DEMO, force=True))
    assert (await failure(get(gateway))).reason == "WORKSPACE_NOT_FOUND"
    again = (await gateway.workspaces.CreateWorkspace(stage.create())).workspace
    assert await get(gateway) == again


async def test_a_write_whose_answer_is_lost_is_read_here(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    await remembering(stage, gateway)
    silent(stage)
    stage.registry.fail("UpdateEnvironment", Unavailable("lost"), times=1, done=True)
    await failure(label(gateway, "done"))
    assert (await get(gateway)).labels == {"n": "done"}


async def test_what_others_write_comes_by_the_watch(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    async with stage.gateway("other") as other:
        for each in (gateway, other):
            await remembering(stage, each)
        stage.forget()
        written = await label(other, "theirs")

        async def told() -> bool:
            return await get(gateway) == written

        await eventually(told)
        assert GET not in stage.registry.calls
        await other.workspaces.DeleteWorkspace(pb.DeleteWorkspaceRequest(name=DEMO, force=True))

        await eventually(lambda: _fails(gateway))
        assert (await failure(get(gateway))).reason == "WORKSPACE_NOT_FOUND"


async def _fails(gateway: Gateway) -> bool:
    try:
        await get(gateway)
    except grpc.aio.AioRpcError:
        return True
    return False


async def test_while_the_watch_is_cut_the_registry_is_asked(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    await remembering(stage, gateway)
    stage.registry.fail(WATCH, Unavailable("away"))
    stage.registry.cut(WATCH)

    async def asks() -> bool:
        before = stage.registry.calls.count(GET)
        await get(gateway)
        return stage.registry.calls.count(GET) > before

    await eventually(asks)
    for number in range(5):
        await behind_its_back(stage, str(number))
        assert (await get(gateway)).labels == {"n": str(number)}
    stage.registry.heal()
    await remembering(stage, gateway)
    assert (await get(gateway)).labels == {"n": "4"}


async def test_reads_of_a_gateway_never_go_back(stage: Stage, gateway: Gateway) -> None:
    """Two gateways write at random; each sees its own writes, and the revision only grows."""
    await gateway.workspaces.CreateWorkspace(stage.create())
    choose = random.Random(7)
    async with stage.gateway("other") as other:

        async def use(mine: Gateway) -> None:
            seen = 0
            for number in range(60):
                wanted = None
                if choose.random() < 0.4:
                    wanted = await label(mine, f"{id(mine)}-{number}")
                    seen = max(seen, int(wanted.etag, 16))
                if choose.random() < 0.1:
                    stage.registry.cut(WATCH)
                found = int((await get(mine)).etag, 16)
                assert found >= seen
                seen = found

        await asyncio.gather(use(gateway), use(other))
        last = await label(other, "last")

        async def agree() -> bool:
            return await get(gateway) == await get(other) == last

        await eventually(agree)


@pytest.mark.long
async def test_a_registry_that_is_killed_and_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with (
        staged(tmp_path_factory.mktemp("apart"), apart=True) as stage,
        stage.gateway() as gateway,
    ):
        await gateway.workspaces.CreateWorkspace(stage.create())
        for number in range(5):
            await remembering(stage, gateway)
            await stage.kill_registry()
            await stage.start_registry()
            await behind_its_back(stage, str(number))

            async def back() -> bool:
                return not await _fails(gateway)

            await eventually(back)  # Until then it says that the registry is away.
            assert (await get(gateway)).labels == {"n": str(number)}


# What no network of ours can bring about at will.


def record(revision: int, name: str = KEY.name) -> Environment:
    return Environment(tenant=KEY.tenant, name=name, revision=revision, node="n" * 100)


def put(revision: int) -> WatchEnvironmentsResponse:
    return WatchEnvironmentsResponse(put=record(revision))


def gone(revision: int) -> WatchEnvironmentsResponse:
    delete = WatchEnvironmentsResponse.Delete(name=KEY.name, tenant=KEY.tenant, revision=revision)
    return WatchEnvironmentsResponse(delete=delete)


def begun() -> WatchEnvironmentsResponse:
    end = WatchEnvironmentsResponse.SnapshotEnd(revision=1)
    return WatchEnvironmentsResponse(snapshot_end=end)


class Line:
    """A watch, told what to say."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[WatchEnvironmentsResponse | None] = asyncio.Queue()
        self.begun = 0

    async def watch(self) -> AsyncGenerator[WatchEnvironmentsResponse, None]:
        self.begun += 1
        while event := await self._events.get():
            yield event
        raise Unavailable("cut")

    async def say(self, *events: WatchEnvironmentsResponse | None) -> None:
        """And let it be heard."""
        for event in events:
            self._events.put_nowait(event)
        await eventually(self._said)
        for _ in range(5):
            await asyncio.sleep(0)

    async def _said(self) -> bool:
        return self._events.empty()


async def test_what_was_written_while_it_was_read_is_not_kept() -> None:
    line, kept = Line(), Memory()
    async with memory.following(kept, line.watch):
        with kept.loading(KEY) as load:  # Read before the watch began: it tells nothing of 2.
            await line.say(begun())
            kept.keep(load, record(1))
        assert kept.find(KEY) is None
        for meanwhile in (put(3), gone(3)):
            with kept.loading(KEY) as load:
                await line.say(meanwhile)
                kept.keep(load, record(2))
            assert kept.find(KEY) is None
        with kept.loading(KEY) as load:  # Cut, and begun anew.
            await line.say(None)
            await eventually(lambda: _begun(line, 2))
            await line.say(begun())
            kept.keep(load, record(4))
        assert kept.find(KEY) is None
        with kept.loading(KEY) as load:
            kept.forget(KEY)  # Somebody here writes, and gets no answer.
            kept.keep(load, record(4))
        assert kept.find(KEY) is None
        with kept.loading(KEY) as load:
            kept.keep(load, record(5))
        assert kept.find(KEY) == record(5)
        await line.say(put(4), gone(4))  # What was known already.
        assert kept.find(KEY) == record(5)
        await line.say(gone(6))
        assert kept.find(KEY) is None


async def _begun(line: Line, times: int) -> bool:
    return line.begun == times


async def test_a_watch_that_says_nothing_is_not_believed() -> None:
    time = 0.0
    line, kept = Line(), Memory(now=lambda: time)
    async with memory.following(kept, line.watch):
        await line.say(begun())
        _read(kept, record(1))
        assert kept.find(KEY) == record(1)
        time += memory.SILENCE + 1
        assert kept.find(KEY) is None
        _read(kept, record(2))
        assert kept.find(KEY) is None
        await line.say(put(3))
        assert kept.find(KEY) == record(3)


async def test_it_holds_a_bounded_number_and_size_of_those_read_last() -> None:
    line = Line()
    size = len(record(1, "environments/0").SerializeToString())
    for kept in (Memory(records=3), Memory(max_bytes=3 * size)):
        async with memory.following(kept, line.watch):
            await line.say(begun())
            for number in range(5):
                _read(kept, record(1, f"environments/{number}"))
                kept.find(Key(KEY.tenant, "environments/0"))
            found = [kept.find(Key(KEY.tenant, f"environments/{each}")) for each in range(5)]
            assert [bool(each) for each in found] == [True, False, False, True, True]


def _read(kept: Memory, environment: Environment) -> None:
    with kept.loading(Key(environment.tenant, environment.name)) as load:
        kept.keep(load, environment)


async def test_nobody_reads_a_record_of_another_tenants() -> None:
    kept = Memory()
    line = Line()
    async with memory.following(kept, line.watch):
        await line.say(begun())
        _read(kept, record(1))
        assert kept.find(Key("other", KEY.name)) is None
