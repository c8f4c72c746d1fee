"""A gateway that is killed while it suspends, resumes or ends a workspace, at any step."""

import asyncio
import uuid
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from google.protobuf.duration_pb2 import Duration

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.registry.v1 import registry_pb2
from tests.gateway.stage import LIMIT, Gateway, Stage, State, eventually
from tests.gateway.steps import LEASE

pytestmark = pytest.mark.long


class Step(NamedTuple):
    """Where a call is held when its gateway is killed."""

    tool: str
    rpc: str
    done: bool


def steps(*table: tuple[str, str]) -> list[Step]:
    return [Step(tool, rpc, done) for tool, rpc in table for done in (False, True)]


SUSPEND = steps(
    ("registry", "ClaimOperation"),
    ("provider", "StopEnvironment"),
    ("registry", "UpdateEnvironmentStatus"),
)
RESUME = steps(
    ("registry", "ClaimOperation"),
    ("provider", "ReopenEnvironment"),
    ("registry", "UpdateEnvironmentStatus"),
)
EXPIRE = steps(
    ("registry", "ClaimOperation"),
    ("registry", "UpdateEnvironmentStatus"),
    ("provider", "ReleaseEnvironment"),
    ("executor", "DeleteExecutions"),
    ("git", "RemoveWorktree"),
)


@pytest.mark.parametrize("force", [False, True], ids=["quiet", "force"])
async def test_suspending_is_finished_or_undone(stage: Stage, force: bool) -> None:
    async with stage.gateway() as gateway:
        for number in range(len(SUSPEND)):
            await gateway.workspaces.CreateWorkspace(stage.create(f"demo-{number}"))
            await _run(gateway, number, "sleep 600 &" if force else "true")
    await _killed(stage, "SuspendWorkspace", SUSPEND, _requests(SUSPEND, force=force))
    async with stage.gateway() as gateway:
        await eventually(stage.settled)
        for number in range(len(SUSPEND)):
            await _usable(gateway, number)


async def test_suspending_goes_on_when_it_is_asked_for_again(stage: Stage) -> None:
    async with stage.gateway() as gateway:
        for number in range(len(SUSPEND)):
            await gateway.workspaces.CreateWorkspace(stage.create(f"demo-{number}"))
            await _run(gateway, number, "echo home > ~/home.txt")
    requests = _requests(SUSPEND)
    await _killed(stage, "SuspendWorkspace", SUSPEND, requests)
    async with stage.gateway() as gateway:
        await eventually(stage.settled)
        for number, request in enumerate(requests):
            again = (await gateway.workspaces.SuspendWorkspace(request)).workspace
            assert again.state == pb.Workspace.STATE_SUSPENDED, SUSPEND[number]
            assert again.cause == pb.Workspace.CAUSE_REQUESTED
            assert not await stage.active(f"demo-{number}")
            back = pb.ResumeWorkspaceRequest(name=request.name)
            await gateway.workspaces.ResumeWorkspace(back)
            assert await _run(gateway, number, "cat ~/home.txt") == "home\n"


async def test_resuming_is_finished_or_undone(stage: Stage) -> None:
    async with stage.gateway() as gateway:
        for number in range(len(RESUME)):
            await gateway.workspaces.CreateWorkspace(stage.create(f"demo-{number}"))
            asked = pb.SuspendWorkspaceRequest(name=f"workspaces/demo-{number}")
            await gateway.workspaces.SuspendWorkspace(asked)
    requests = [
        pb.ResumeWorkspaceRequest(name=f"workspaces/demo-{number}", request_id=str(uuid.uuid4()))
        for number in range(len(RESUME))
    ]
    await _killed(stage, "ResumeWorkspace", RESUME, requests)
    async with stage.gateway() as gateway:
        await eventually(stage.settled)
        for number, back in enumerate(requests):
            again = (await gateway.workspaces.ResumeWorkspace(back)).workspace
            assert again.state == pb.Workspace.STATE_READY, RESUME[number]
            assert await _run(gateway, number, "cat hello.txt") == "hello\n"


@pytest.mark.parametrize("step", EXPIRE, ids=[f"{each.rpc}-{each.done}" for each in EXPIRE])
async def test_what_expires_goes_once_and_its_work_is_kept(stage: Stage, step: Step) -> None:
    stage.times.set(-timedelta(hours=2))  # Of the registry only: the victim knows the right one.
    async with stage.gateway() as gateway:
        for number, script in enumerate(("true", "echo precious > work.txt")):
            request = stage.create(f"demo-{number}", spec={"ttl": Duration(seconds=3600)})
            await gateway.workspaces.CreateWorkspace(request)
            await _run(gateway, number, script)
    stage.times.set(timedelta(hours=2))
    held = getattr(stage, step.tool).hold(step.rpc, done=step.done)
    async with stage.gateway_process() as victim:
        await asyncio.wait_for(held.reached.wait(), LIMIT)
        await victim.kill()
    stage.reset()
    async with stage.gateway(), stage.gateway("other"):
        await eventually(lambda: _only(stage, "demo-1"))
        (record,) = await stage.records()
        assert record.cause == registry_pb2.Environment.CAUSE_EXPIRED


async def _only(stage: Stage, name: str) -> bool:
    deleted = {each.name: each.state == State.STATE_DELETED for each in await stage.records()}
    return deleted == {f"environments/{name}": True}


def _requests(table: list[Step], **fields: Any) -> list[pb.SuspendWorkspaceRequest]:
    return [
        pb.SuspendWorkspaceRequest(
            name=f"workspaces/demo-{number}", request_id=str(uuid.uuid4()), **fields
        )
        for number in range(len(table))
    ]


async def _killed(stage: Stage, method: str, table: list[Step], requests: list[Any]) -> None:
    """Kill a gateway when each of these requests has come to its step; its leases are over then."""
    async with stage.gateway_process(LEASE.total_seconds()) as victim:
        holds = [
            getattr(stage, step.tool).hold(step.rpc, done=step.done, correlation_id=f"at-{number}")
            for number, step in enumerate(table)
        ]
        calls = [
            getattr(victim.workspaces, method)(
                request, metadata=(("x-request-id", f"at-{number}"),)
            )
            for number, request in enumerate(requests)
        ]
        ended = asyncio.gather(*calls, return_exceptions=True)
        reached = asyncio.gather(*(held.reached.wait() for held in holds))
        await asyncio.wait_for(reached, LIMIT)
        await victim.kill()
        await ended
    stage.reset()
    stage.times.pass_(LEASE)


async def _usable(gateway: Gateway, number: int) -> None:
    """Whichever came to be: a workspace that is ready, or can be resumed."""
    name = f"workspaces/demo-{number}"
    found = (await gateway.workspaces.GetWorkspace(pb.GetWorkspaceRequest(name=name))).workspace
    if found.state == pb.Workspace.STATE_SUSPENDED:
        assert found.cause == pb.Workspace.CAUSE_REQUESTED
        await gateway.workspaces.ResumeWorkspace(pb.ResumeWorkspaceRequest(name=name))
    else:
        assert (found.state, found.cause) == (pb.Workspace.STATE_READY, 0)
    assert await _run(gateway, number, "cat hello.txt") == "hello\n"


async def _run(gateway: Gateway, number: int, script: str) -> str:
    spec = executor_pb2.ExecutionSpec(script=script)
    request = pb.ExecuteRequest(name=f"workspaces/demo-{number}", spec=spec)
    return (await gateway.executions.Execute(request)).stdout.text
