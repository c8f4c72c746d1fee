"""What gateways write into many records goes there together, and each by itself."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta

from agent.handle import Handle
from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.provider.v1 import provider_pb2
from tests.gateway.stage import Gateway, Stage, eventually

NAMES = ("one", "two", "three")
BATCH = "BatchUpdateEnvironments"
ONCE = timedelta(minutes=1)
"""A gateway that looks so rarely looks at its start only."""


def moved(generation: int) -> Callable[[bytes], bytes]:
    """The provider's answers, as one has them whose handles have moved: see test_handles.py."""

    def alter(data: bytes) -> bytes:
        answer = provider_pb2.ListProvisionedResponse.FromString(data)
        for each in answer.observations:
            one = Handle.decode(each.handle)
            later = Handle(driver=one.driver, node=one.node, uid=one.uid, generation=generation)
            each.handle, each.generation = later.encode(), generation
        return answer.SerializeToString()

    return alter


async def made(stage: Stage) -> None:
    """Workspaces that no gateway is at."""
    async with stage.gateway(reconcile_interval=ONCE) as gateway:
        creating = [gateway.workspaces.CreateWorkspace(stage.create(name)) for name in NAMES]
        await asyncio.gather(*creating)
    stage.forget()


async def generations(stage: Stage) -> dict[str, int]:
    return {each.name.rpartition("/")[2]: each.handle_generation for each in await stage.records()}


async def revisions(stage: Stage) -> int:
    return max(each.revision for each in await stage.records())


async def all_at(stage: Stage, generation: int) -> bool:
    return set((await generations(stage)).values()) == {generation}


async def looked(stage: Stage, times: int) -> None:
    before = stage.registry.calls.count("ListEnvironments")

    async def done() -> bool:
        return stage.registry.calls.count("ListEnvironments") >= before + times

    await eventually(done)


async def test_handles_that_moved_are_noted_in_one_write(stage: Stage) -> None:
    await made(stage)
    stage.provider.alter("ListProvisioned", moved(2))
    async with stage.gateway(reconcile_interval=ONCE):
        await eventually(lambda: all_at(stage, 2))
    assert stage.registry.calls.count(BATCH) == 1
    assert "UpdateEnvironment" not in stage.registry.calls


async def test_gateways_side_by_side_note_each_move_once(stage: Stage) -> None:
    await made(stage)
    before = await revisions(stage)
    stage.provider.alter("ListProvisioned", moved(2))
    held = stage.registry.hold(BATCH)
    async with AsyncExitStack() as stack:
        for name in ("one", "two"):
            await stack.enter_async_context(stage.gateway(name))

        async def both() -> bool:
            return stage.registry.calls.count(BATCH) == 2

        await eventually(both)  # Each has looked, and is about to write the same.
        held.go_on.set()
        await eventually(lambda: all_at(stage, 2))
        await looked(stage, 6)
    assert await revisions(stage) == before + len(NAMES)


async def test_one_that_was_written_meanwhile_takes_no_other_with_it(stage: Stage) -> None:
    await made(stage)
    stage.provider.alter("ListProvisioned", moved(2))
    held = stage.registry.hold(BATCH)
    async with stage.gateway(reconcile_interval=ONCE) as gateway:
        await asyncio.wait_for(held.reached.wait(), 20)
        labels = pb.Workspace(name="workspaces/two", labels={"team": "web"})
        await gateway.workspaces.UpdateWorkspace(pb.UpdateWorkspaceRequest(workspace=labels))
        held.go_on.set()

        async def others() -> bool:
            return await generations(stage) == {"one": 2, "two": 1, "three": 2}

        await eventually(others)
    async with stage.gateway():
        await eventually(lambda: all_at(stage, 2))
    labelled = [each for each in await stage.records() if each.labels]
    assert [each.name for each in labelled] == ["environments/two"]


async def test_uses_are_noted_together(stage: Stage) -> None:
    await made(stage)
    interval = timedelta(seconds=0.5)
    async with stage.gateway(activity_interval=interval, reconcile_interval=ONCE) as gateway:
        waiting = [asyncio.ensure_future(used(gateway, name)) for name in NAMES]
        stage.times.pass_(timedelta(minutes=1))  # So that all are due at the next look.
        before = {each.uid: each.last_active_time.seconds for each in await stage.records()}

        async def noted() -> bool:
            return all(
                each.last_active_time.seconds > before[each.uid] for each in await stage.records()
            )

        await eventually(noted)
        stage.forget()
        stage.times.pass_(timedelta(minutes=1))
        before = {each.uid: each.last_active_time.seconds for each in await stage.records()}
        await eventually(noted)
        assert BATCH in stage.registry.calls
        assert "UpdateEnvironment" not in stage.registry.calls
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def used(gateway: Gateway, name: str) -> None:
    """An open stream."""
    spec = executor_pb2.ExecutionSpec(script="sleep 60")
    request = pb.StreamExecutionRequest(
        name=f"workspaces/{name}", spec=spec, cancel_on_disconnect=True
    )
    async for _ in gateway.executions.StreamExecution(request):
        pass
