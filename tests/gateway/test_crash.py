"""A gateway that is killed at any step, and what the next one makes of it."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeAlias

import grpc
import pytest

from cove.gateway.v1 import gateway_pb2 as pb
from cove.git.v1 import git_pb2
from cove.git.v1.git_pb2_grpc import GitServiceStub
from servicekit.errors import Unavailable
from tests.gateway.stage import LIMIT, TENANT, Stage, State, eventually
from tests.gateway.steps import Step, killed_at, run, steps
from tests.servicekit.failing import failure

Check: TypeAlias = Callable[[], Awaitable[bool]]


CLONING = Step("cloning", "git", "CreateWorktree")
REMOVING = Step("removing", "git", "RemoveWorktree")
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


async def test_creates_are_finished_or_leave_nothing_wherever_their_gateway_is_killed(
    stage: Stage,
) -> None:
    requests = {step: stage.create(step.id, request_id=str(uuid.uuid4())) for step in steps(CREATE)}
    await killed_at(stage, "CreateWorkspace", requests)
    async with stage.gateway() as gateway:
        await eventually(stage.settled)
        assert all(record.state == State.STATE_READY for record in await stage.records())
        for step, request in requests.items():
            retried = await gateway.workspaces.CreateWorkspace(request)
            assert retried.workspace.state == READY, step
            assert await run(gateway, name=f"workspaces/{step.id}") == "hello\n", step


@pytest.mark.long
async def test_creates_that_fail_leave_nothing_wherever_their_gateway_is_killed(
    stage: Stage,
) -> None:
    bad = {"revision": "no-such"}
    requests = {step: stage.create(step.id, spec=bad) for step in steps(UNDO)}
    await killed_at(stage, "CreateWorkspace", requests)
    async with stage.gateway():
        await eventually(stage.empty)


@pytest.mark.long
async def test_deletes_are_finished_wherever_their_gateway_is_killed(stage: Stage) -> None:
    table = steps(DELETE)
    async with stage.gateway() as gateway:
        for step in table:
            await gateway.workspaces.CreateWorkspace(stage.create(step.id))
    requests = {
        step: pb.DeleteWorkspaceRequest(name=f"workspaces/{step.id}", request_id=str(uuid.uuid4()))
        for step in table
    }
    await killed_at(stage, "DeleteWorkspace", requests)
    async with stage.gateway() as gateway:
        await eventually(stage.settled)
        for request in requests.values():
            await gateway.workspaces.DeleteWorkspace(request)
        assert await stage.empty()


async def test_a_gateway_that_stops_hands_its_creates_over_at_once(stage: Stage) -> None:
    held = stage.git.hold("CreateWorktree")
    async with stage.gateway(lease=LONG) as stopped:
        request = stage.create(return_when=pb.RETURN_WHEN_ACCEPTED)
        await stopped.workspaces.CreateWorkspace(request)
        await asyncio.wait_for(held.reached.wait(), LIMIT)
    stage.reset()
    async with stage.gateway(lease=LONG):
        await eventually(_all_ready(stage))


async def test_a_create_that_cannot_be_finished_is_undone(stage: Stage) -> None:
    await killed_at(stage, "CreateWorkspace", {CLONING: stage.create()})
    moved = stage.repository.with_suffix(".moved")
    stage.repository.rename(moved)
    try:
        async with stage.gateway():
            await eventually(stage.empty)
    finally:
        moved.rename(stage.repository)


@pytest.mark.long
async def test_a_create_whose_tool_is_away_is_finished_when_that_is_back(stage: Stage) -> None:
    await killed_at(stage, "CreateWorkspace", {CLONING: stage.create()})
    stage.git.fail("CreateWorktree", Unavailable("away"), times=2)
    async with stage.gateway():
        await eventually(_all_ready(stage))


async def test_an_abandoned_delete_keeps_unsaved_work(stage: Stage) -> None:
    async with stage.gateway() as gateway:
        await gateway.workspaces.CreateWorkspace(stage.create())
        await run(gateway, "echo precious > work.txt; echo hello")
    request = pb.DeleteWorkspaceRequest(name=DEMO)
    await killed_at(stage, "DeleteWorkspace", {REMOVING: request})
    async with stage.gateway():
        await eventually(stage.settled)
        assert [record.state for record in await stage.records()] == [State.STATE_DELETED]


async def test_two_reconcilers_finish_a_create_once(stage: Stage) -> None:
    await killed_at(stage, "CreateWorkspace", {CLONING: stage.create()})
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
    home = stage.state / "git" / "worktrees" / uid
    tree = home / ("upper" if (home / "upper").exists() else "tree")
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


def _all_ready(stage: Stage) -> Check:
    async def check() -> bool:
        records = await stage.records()
        return bool(records) and all(record.state == State.STATE_READY for record in records)

    return check


def _looked(stage: Stage, times: int) -> Check:
    async def check() -> bool:
        return stage.provider.calls.count("ListProvisioned") >= times

    return check
