"""A gateway that is killed at any step, and what the next one makes of it."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeAlias

import grpc
import pytest

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.git.v1 import git_pb2
from cove.git.v1.git_pb2_grpc import GitServiceStub
from servicekit.errors import Unavailable
from tests.gateway.stage import TENANT, Gateway, Stage, eventually
from tests.servicekit.failing import failure

Check: TypeAlias = Callable[[], Awaitable[bool]]

LONG = timedelta(minutes=1)
DEMO = "workspaces/demo"
READY = pb.Workspace.STATE_READY
CREATE = [
    ("registry", "RegisterEnvironment"),
    ("git", "CreateWorktree"),
    ("provider", "ProvisionEnvironment"),
    ("registry", "UpdateEnvironment"),
    ("registry", "UpdateEnvironmentStatus"),
]
UNDO = [
    ("registry", "UpdateEnvironmentStatus"),
    ("provider", "ReleaseEnvironment"),
    ("git", "RemoveWorktree"),
    ("registry", "DeregisterEnvironment"),
]
DELETE = [
    ("registry", "ClaimOperation"),
    ("registry", "UpdateEnvironmentStatus"),
    ("provider", "ReleaseEnvironment"),
    ("executor", "DeleteExecutions"),
    ("git", "RemoveWorktree"),
    ("registry", "DeregisterEnvironment"),
]


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("tool", "rpc"), CREATE)
async def test_a_create_is_finished_or_leaves_nothing(
    stage: Stage, tool: str, rpc: str, *, done: bool
) -> None:
    request = stage.create(request_id=str(uuid.uuid4()))
    await _killed_at(stage, tool, rpc, "CreateWorkspace", request, done=done)
    async with stage.gateway() as gateway:
        await eventually(stage.settled)
        states = [record.state for record in await stage.records()]
        assert states in ([], [READY])
        retried = await gateway.workspaces.CreateWorkspace(request)
        assert retried.workspace.state == READY
        assert await _run(gateway) == "hello\n"


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("tool", "rpc"), UNDO)
async def test_an_undo_is_finished(stage: Stage, tool: str, rpc: str, *, done: bool) -> None:
    request = stage.create(spec={"revision": "no-such"})
    await _killed_at(stage, tool, rpc, "CreateWorkspace", request, done=done)
    async with stage.gateway():
        await eventually(stage.empty)


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("tool", "rpc"), DELETE)
async def test_a_delete_is_finished(stage: Stage, tool: str, rpc: str, *, done: bool) -> None:
    async with stage.gateway() as gateway:
        await gateway.workspaces.CreateWorkspace(stage.create())
    request = pb.DeleteWorkspaceRequest(name=DEMO, request_id=str(uuid.uuid4()))
    await _killed_at(stage, tool, rpc, "DeleteWorkspace", request, done=done)
    async with stage.gateway() as gateway:
        await eventually(stage.settled)
        await gateway.workspaces.DeleteWorkspace(request)
        assert await stage.empty()


async def test_a_create_that_cannot_be_finished_is_undone(stage: Stage) -> None:
    await _killed_at(stage, "git", "CreateWorktree", "CreateWorkspace", stage.create())
    moved = stage.repository.with_suffix(".moved")
    stage.repository.rename(moved)
    try:
        async with stage.gateway():
            await eventually(stage.empty)
    finally:
        moved.rename(stage.repository)


async def test_a_create_whose_tool_is_away_is_finished_when_that_is_back(stage: Stage) -> None:
    await _killed_at(stage, "git", "CreateWorktree", "CreateWorkspace", stage.create())
    stage.git.fail("CreateWorktree", Unavailable("away"), times=2)
    async with stage.gateway():
        await eventually(_all_ready(stage))


async def test_an_abandoned_delete_keeps_unsaved_work(stage: Stage) -> None:
    async with stage.gateway() as gateway:
        await gateway.workspaces.CreateWorkspace(stage.create())
        await _run(gateway, "echo precious > work.txt; echo hello")
    request = pb.DeleteWorkspaceRequest(name=DEMO)
    await _killed_at(stage, "git", "RemoveWorktree", "DeleteWorkspace", request)
    async with stage.gateway():
        await eventually(stage.settled)
        assert [record.state for record in await stage.records()] == [pb.Workspace.STATE_DELETED]


async def test_two_reconcilers_finish_a_create_once(stage: Stage) -> None:
    await _killed_at(stage, "git", "CreateWorktree", "CreateWorkspace", stage.create())
    stage.git.calls.clear()
    async with stage.gateway("one"), stage.gateway("two"):
        await eventually(_all_ready(stage))
    assert stage.git.calls.count("CreateWorktree") == 1


async def test_a_worktree_without_record_is_removed(stage: Stage) -> None:
    await _orphan(stage)
    async with stage.gateway():
        await eventually(stage.empty)


async def test_a_worktree_without_record_is_left_alone_for_the_grace_period(stage: Stage) -> None:
    await _orphan(stage)
    async with stage.gateway(orphan_grace=LONG):
        await eventually(_looked(stage, times=3))
        assert not await stage.empty()


async def test_work_without_record_is_never_removed(stage: Stage) -> None:
    uid = await _orphan(stage)
    tree = stage.state / "git" / "worktrees" / uid / "tree"
    (tree / "work.txt").write_text("precious")
    async with stage.gateway():
        await eventually(_looked(stage, times=3))
    assert (tree / "work.txt").read_text() == "precious"
    (tree / "work.txt").unlink()


async def test_a_registry_that_is_away_makes_no_orphans(stage: Stage) -> None:
    async with stage.gateway() as gateway:
        await gateway.workspaces.CreateWorkspace(stage.create())
    stage.reset()
    stage.registry.fail("ListEnvironments", Unavailable("away"))
    async with stage.gateway():
        await eventually(_looked(stage, times=3))
    assert "RemoveWorktree" not in stage.git.calls
    assert "ReleaseEnvironment" not in stage.provider.calls
    stage.reset()


async def test_a_registry_that_is_away_for_a_while_does_not_stop_an_undo(stage: Stage) -> None:
    async with stage.gateway(lease=LONG) as gateway:
        for rpc in ("UpdateEnvironment", "UpdateEnvironmentStatus"):
            stage.registry.fail(rpc, Unavailable("away"), times=2)
        failed = await failure(gateway.workspaces.CreateWorkspace(stage.create()))
        assert failed.code is grpc.StatusCode.UNAVAILABLE
        assert await stage.empty()


async def _killed_at(
    stage: Stage, tool: str, rpc: str, method: str, request: object, *, done: bool = False
) -> None:
    """Kill a gateway while a step of `method` is on its way, to the tool or, with `done`, back."""
    proxy = getattr(stage, tool)
    async with stage.gateway_process() as victim:
        held = proxy.hold(rpc, done=done)
        call = asyncio.ensure_future(_outcome(getattr(victim.workspaces, method)(request)))
        await asyncio.wait_for(held.reached.wait(), 10)
        await victim.kill()
        await call
    stage.reset()


async def _outcome(call: grpc.aio.Call) -> None:
    try:
        await call  # type: ignore[misc]
    except grpc.aio.AioRpcError:
        pass


async def _orphan(stage: Stage) -> str:
    """A worktree that git made for nobody."""
    uid = "a234567a234567aa"
    async with grpc.aio.insecure_channel(f"unix:{stage.runtime}/git") as channel:
        await GitServiceStub(channel).CreateWorktree(
            git_pb2.CreateWorktreeRequest(
                uid=uid, repository=f"file://{stage.repository}", branch="cove/orphan"
            ),
            metadata=(("cove-tenant", TENANT),),
        )
    return uid


async def _run(gateway: Gateway, script: str = "cat hello.txt") -> str:
    spec = executor_pb2.ExecutionSpec(script=script)
    answer = await gateway.executions.Execute(pb.ExecuteRequest(name=DEMO, spec=spec))
    return answer.stdout.text


def _all_ready(stage: Stage) -> Check:
    async def check() -> bool:
        records = await stage.records()
        return bool(records) and all(record.state == READY for record in records)

    return check


def _looked(stage: Stage, times: int) -> Check:
    async def check() -> bool:
        return stage.provider.calls.count("ListProvisioned") >= times

    return check
