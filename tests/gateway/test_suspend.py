"""Suspending a workspace and resuming it, asked for by a caller."""

import asyncio
import uuid
from typing import Any

import grpc
import pytest

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.git.v1 import git_pb2
from servicekit.errors import Unavailable
from tests.gateway.stage import LIMIT, Gateway, Stage, State, eventually
from tests.servicekit.failing import failure

DEMO = "workspaces/demo"
READY = pb.Workspace.STATE_READY
SUSPENDED = pb.Workspace.STATE_SUSPENDED


async def test_a_suspended_workspace_keeps_its_files_and_its_home(
    stage: Stage, gateway: Gateway
) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    await _run(gateway, "echo work > work.txt; echo home > ~/home.txt")
    suspended = await _suspend(gateway)
    assert suspended.state == SUSPENDED
    assert suspended.cause == pb.Workspace.CAUSE_REQUESTED
    assert suspended.HasField("suspend_time")
    assert not await stage.active("demo")
    failed = await failure(_run(gateway, "true"))
    assert (failed.code, failed.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "WORKSPACE_SUSPENDED",
    )
    assert failed.info.metadata["name"] == DEMO
    assert await _suspend(gateway) != suspended  # Anew, and without a word.

    resumed = await _resume(gateway)
    assert resumed.state == READY
    assert not resumed.cause
    assert not resumed.HasField("suspend_time")
    assert await _run(gateway, "cat work.txt ~/home.txt") == "work\nhome\n"
    assert await _resume(gateway) == await _get(gateway)


@pytest.mark.long
async def test_what_needs_no_sandbox_goes_on_while_it_is_suspended(
    stage: Stage, gateway: Gateway
) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    await _run(gateway, "echo work > work.txt; echo said")
    await _suspend(gateway)
    status = await gateway.sources.GetWorktreeStatus(pb.GetWorktreeStatusRequest(name=DEMO))
    assert [each.path for each in status.status.entries]
    async for _ in gateway.sources.GetDiff(pb.GetDiffRequest(name=DEMO)):
        pass
    for consistency in (pb.CONSISTENCY_LIVE, pb.CONSISTENCY_FROZEN):
        made = git_pb2.Commit(message="Work")
        request = pb.CreateCommitRequest(parent=DEMO, commit=made, consistency=consistency)
        if consistency == pb.CONSISTENCY_LIVE:
            await gateway.sources.CreateCommit(request)
        else:
            assert (await failure(gateway.sources.CreateCommit(request))).reason == (
                "NOTHING_TO_COMMIT"
            )
    listed = await gateway.executions.ListExecutions(pb.ListExecutionsRequest(parent=DEMO))
    name = listed.executions[0].name
    events = gateway.executions.ReadOutput(pb.ReadOutputRequest(name=name))
    assert b"said\n" in b"".join([each.chunk.data async for each in events])
    await gateway.workspaces.SnapshotWorkspace(pb.SnapshotWorkspaceRequest(name=DEMO))
    fork = pb.ForkWorkspaceRequest(name=DEMO, workspace_id="fork")
    assert (await gateway.workspaces.ForkWorkspace(fork)).workspace.state == READY
    assert await _run(gateway, "cat work.txt", name="workspaces/fork") == "work\n"
    assert (await _get(gateway)).state == SUSPENDED
    assert not await stage.active("demo")
    for call in (
        gateway.files.ListFiles(pb.ListFilesRequest(name=DEMO)),
        gateway.files.MakeDirectory(pb.MakeDirectoryRequest(name=DEMO, path="d")),
    ):
        assert (await failure(call)).reason == "WORKSPACE_SUSPENDED"
    deleted = pb.DeleteWorkspaceRequest(name=DEMO)
    assert (await gateway.workspaces.DeleteWorkspace(deleted)).workspace.state in (
        pb.Workspace.STATE_UNSPECIFIED,
        pb.Workspace.STATE_DELETED,
    )


@pytest.mark.parametrize("script", ["sleep 600", "sleep 600 & echo on"])
async def test_one_in_which_something_runs_is_suspended_by_force_only(
    stage: Stage, gateway: Gateway, script: str
) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    spec = executor_pb2.ExecutionSpec(script=script)
    start = pb.StartExecutionRequest(
        parent=DEMO, execution_id="busy", execution=executor_pb2.Execution(spec=spec)
    )
    name = (await gateway.executions.StartExecution(start)).execution.name
    if "&" in script:
        await gateway.executions.WaitExecution(pb.WaitExecutionRequest(name=name))
    failed = await failure(_call(gateway))
    assert (failed.code, failed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WORKSPACE_BUSY")
    assert failed.info.metadata["executions"] == "busy"
    found = await _get(gateway)
    assert (found.state, found.cause) == (READY, pb.Workspace.CAUSE_UNSPECIFIED)
    assert await _run(gateway, "echo still") == "still\n"

    assert (await _suspend(gateway, force=True)).state == SUSPENDED
    waiting = gateway.executions.WaitExecution(pb.WaitExecutionRequest(name=name))
    ended = (await waiting).execution
    if "&" in script:
        assert ended.exit.code == 0
    else:
        assert ended.exit.cancelled.by == "suspend"
    await _resume(gateway)
    assert await _run(gateway, "pgrep sleep || echo none") == "none\n"


async def test_suspend_and_resume_can_be_repeated(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    once = str(uuid.uuid4())
    first = await _suspend(gateway, request_id=once)
    assert await _suspend(gateway, request_id=once) == first
    back = pb.ResumeWorkspaceRequest(name=DEMO, request_id=str(uuid.uuid4()))
    resumed = await gateway.workspaces.ResumeWorkspace(back)
    assert await gateway.workspaces.ResumeWorkspace(back) == resumed
    # Comes late: nothing that runs since may be ended by it.
    spec = executor_pb2.ExecutionSpec(script="sleep 600")
    start = pb.StartExecutionRequest(parent=DEMO, execution=executor_pb2.Execution(spec=spec))
    await gateway.executions.StartExecution(start)
    assert (await failure(_call(gateway, request_id=once))).reason == "WORKSPACE_BUSY"


async def test_what_cannot_be_suspended_is_left_as_it_was(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    assert (await failure(_call(gateway, etag="old"))).reason == "ETAG_MISMATCH"
    stage.provider.fail("StopEnvironment", Unavailable("away"), times=1)
    await failure(_call(gateway))
    assert (await _get(gateway)).state == READY
    assert await _run(gateway, "echo still") == "still\n"
    # The provider did it, and nobody heard of it.
    stage.reset()
    stage.registry.fail("UpdateEnvironmentStatus", Unavailable("away"), times=5)
    await failure(_call(gateway))
    stage.reset()
    await eventually(stage.settled)
    assert await _run(gateway, "echo still") == "still\n"


async def test_a_call_that_comes_while_it_is_suspended_waits_for_it(
    stage: Stage, gateway: Gateway
) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    held = stage.provider.hold("StopEnvironment", done=True)
    suspending = asyncio.ensure_future(_suspend(gateway))
    await asyncio.wait_for(held.reached.wait(), LIMIT)
    running = asyncio.ensure_future(failure(_run(gateway, "true")))
    await asyncio.wait((running,), timeout=0.3)
    assert not running.done()
    stage.reset()
    await suspending
    assert (await running).reason == "WORKSPACE_SUSPENDED"


async def test_who_read_that_it_was_ready_starts_nothing_in_a_suspended_one(
    stage: Stage, gateway: Gateway
) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    held = stage.executor.hold("Execute")
    running = asyncio.ensure_future(failure(_run(gateway, "touch ran")))
    await asyncio.wait_for(held.reached.wait(), LIMIT)
    await _suspend(gateway)
    stage.reset()
    assert (await running).reason == "WORKSPACE_SUSPENDED"
    assert not await stage.active("demo")
    await _resume(gateway)
    assert await _run(gateway, "ls") == "hello.txt\n"


@pytest.mark.long
async def test_only_what_is_there_is_suspended(stage: Stage, gateway: Gateway) -> None:
    assert (await failure(_call(gateway))).reason == "WORKSPACE_NOT_FOUND"
    await gateway.workspaces.CreateWorkspace(stage.create())
    await _run(gateway, "echo precious > work.txt")
    await gateway.workspaces.DeleteWorkspace(pb.DeleteWorkspaceRequest(name=DEMO))
    assert (await failure(_call(gateway))).reason == "WORKSPACE_NOT_READY"
    back = pb.ResumeWorkspaceRequest(name=DEMO)
    assert (await failure(gateway.workspaces.ResumeWorkspace(back))).reason == "WORKSPACE_NOT_READY"


@pytest.mark.long
async def test_unsaved_work_of_a_suspended_workspace_is_kept_when_it_is_deleted(
    stage: Stage, gateway: Gateway
) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    await _run(gateway, "echo precious > work.txt")
    await _suspend(gateway)
    await gateway.workspaces.DeleteWorkspace(pb.DeleteWorkspaceRequest(name=DEMO))
    assert [each.state for each in await stage.records()] == [State.STATE_DELETED]
    restored = await gateway.workspaces.UndeleteWorkspace(pb.UndeleteWorkspaceRequest(name=DEMO))
    assert restored.workspace.state == READY
    assert await _run(gateway, "cat work.txt") == "precious\n"


def _call(gateway: Gateway, **fields: Any) -> Any:
    return gateway.workspaces.SuspendWorkspace(pb.SuspendWorkspaceRequest(name=DEMO, **fields))


async def _suspend(gateway: Gateway, **fields: Any) -> pb.Workspace:
    suspended: pb.Workspace = (await _call(gateway, **fields)).workspace
    return suspended


async def _resume(gateway: Gateway) -> pb.Workspace:
    request = pb.ResumeWorkspaceRequest(name=DEMO)
    return (await gateway.workspaces.ResumeWorkspace(request)).workspace


async def _get(gateway: Gateway) -> pb.Workspace:
    return (await gateway.workspaces.GetWorkspace(pb.GetWorkspaceRequest(name=DEMO))).workspace


async def _run(gateway: Gateway, script: str, name: str = DEMO) -> str:
    spec = executor_pb2.ExecutionSpec(script=script)
    answer = await gateway.executions.Execute(pb.ExecuteRequest(name=name, spec=spec))
    return answer.stdout.text
