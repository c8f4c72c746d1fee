"""Deleting a workspace, and bringing it back."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import grpc
import pytest

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from servicekit.errors import FailedPrecondition, Unavailable
from tests.gateway.stage import Gateway, Stage, eventually
from tests.servicekit.failing import failure

DEMO = "workspaces/demo"


class Refused(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_CAPABILITY_MISSING


async def test_a_deleted_workspace_leaves_nothing_and_frees_its_id(
    stage: Stage, gateway: Gateway
) -> None:
    first = await gateway.workspaces.CreateWorkspace(stage.create())
    deleted = await _delete(gateway)
    assert not deleted.HasField("workspace")
    assert await stage.empty()
    second = await gateway.workspaces.CreateWorkspace(stage.create())
    assert first.workspace.uid != second.workspace.uid


async def test_what_is_not_there_cannot_be_deleted_unless_that_is_allowed(
    stage: Stage, gateway: Gateway
) -> None:
    failed = await failure(gateway.workspaces.DeleteWorkspace(_request()))
    assert failed.code is grpc.StatusCode.NOT_FOUND
    assert failed.reason == "WORKSPACE_NOT_FOUND"
    assert failed.info.metadata["name"] == DEMO
    await _delete(gateway, allow_missing=True)


async def test_an_old_etag_deletes_nothing(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    failed = await failure(gateway.workspaces.DeleteWorkspace(_request(etag="old")))
    assert failed.code is grpc.StatusCode.ABORTED
    assert failed.reason == "ETAG_MISMATCH"
    assert failed.info.metadata["name"] == DEMO
    got = await gateway.workspaces.GetWorkspace(pb.GetWorkspaceRequest(name=DEMO))
    await _delete(gateway, etag=got.workspace.etag)


async def test_unsaved_work_is_kept_and_comes_back(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    await _run(gateway, "echo precious > work.txt; echo secret > ~/home.txt")
    deleted = (await _delete(gateway)).workspace
    assert deleted.state == pb.Workspace.STATE_DELETED
    window = deleted.purge_time.ToDatetime() - deleted.delete_time.ToDatetime()
    assert timedelta(hours=23) < window < timedelta(hours=25)
    listed = await gateway.workspaces.ListWorkspaces(pb.ListWorkspacesRequest())
    assert not listed.workspaces
    every = await gateway.workspaces.ListWorkspaces(pb.ListWorkspacesRequest(show_deleted=True))
    assert [each.name for each in every.workspaces] == [DEMO]
    refused = await failure(gateway.workspaces.CreateWorkspace(stage.create()))
    assert refused.reason == "WORKSPACE_EXISTS"
    assert (await _refused_run(gateway)) == "DELETED"

    restored = await gateway.workspaces.UndeleteWorkspace(pb.UndeleteWorkspaceRequest(name=DEMO))
    assert restored.workspace.state == pb.Workspace.STATE_READY
    assert not restored.workspace.HasField("purge_time")
    assert await _run(gateway, "cat work.txt") == "precious\n"


async def test_force_keeps_nothing(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    await _run(gateway, "echo precious > work.txt")
    await _delete(gateway)
    await _delete(gateway, force=True)
    assert await stage.empty()


async def test_kept_work_is_purged_when_its_time_is_over(stage: Stage) -> None:
    async with stage.gateway(undelete_window=timedelta(milliseconds=1)) as gateway:
        await gateway.workspaces.CreateWorkspace(stage.create())
        await _run(gateway, "echo precious > work.txt")
        await _delete(gateway)
        await eventually(stage.empty)


async def test_a_workspace_that_is_there_cannot_be_undeleted(
    stage: Stage, gateway: Gateway
) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    for request_id in ("", str(uuid.uuid4())):
        request = pb.UndeleteWorkspaceRequest(name=DEMO, request_id=request_id)
        failed = await failure(gateway.workspaces.UndeleteWorkspace(request))
        assert failed.reason == "WORKSPACE_NOT_READY"
        assert failed.info.metadata["state"] == "READY"


async def test_undelete_can_be_repeated(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    await _run(gateway, "echo precious > work.txt")
    await _delete(gateway)
    request = pb.UndeleteWorkspaceRequest(name=DEMO, request_id=str(uuid.uuid4()))
    first = await gateway.workspaces.UndeleteWorkspace(request)
    assert await gateway.workspaces.UndeleteWorkspace(request) == first


async def test_an_undelete_that_fails_changes_nothing(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    await _run(gateway, "echo precious > work.txt")
    await _delete(gateway)
    stage.provider.fail("ProvisionEnvironment", Refused("no"), times=1)
    request = pb.UndeleteWorkspaceRequest(name=DEMO)
    assert (await failure(gateway.workspaces.UndeleteWorkspace(request))).reason
    restored = await gateway.workspaces.UndeleteWorkspace(request)
    assert restored.workspace.state == pb.Workspace.STATE_READY


@pytest.mark.parametrize("rpc", ["ClaimOperation", "RegisterEnvironment"])
async def test_what_is_claimed_is_begun_also_when_its_caller_leaves(stage: Stage, rpc: str) -> None:
    async with stage.gateway(lease=timedelta(hours=1)) as gateway:
        if rpc == "ClaimOperation":
            await gateway.workspaces.CreateWorkspace(stage.create())
        held = stage.registry.hold(rpc, done=True)
        call = (
            gateway.workspaces.DeleteWorkspace(_request(force=True))
            if rpc == "ClaimOperation"
            else gateway.workspaces.CreateWorkspace(stage.create())
        )
        await asyncio.wait_for(held.reached.wait(), 30)
        call.cancel()
        # When this is answered the gateway has seen that the caller is gone.
        await gateway.workspaces.ListWorkspaces(pb.ListWorkspacesRequest())
        stage.registry.heal()
        await eventually(stage.settled)
        assert bool(await stage.records()) is (rpc == "RegisterEnvironment")


@pytest.mark.parametrize("rpc", ["CreateWorktree", "ProvisionEnvironment"])
async def test_a_workspace_that_is_being_made_can_be_deleted(
    stage: Stage, gateway: Gateway, rpc: str
) -> None:
    """By the gateway that makes it, and by another."""
    tool = stage.git if rpc == "CreateWorktree" else stage.provider
    async with stage.gateway("other") as other:
        for deleting in (gateway, other):
            held = tool.hold(rpc, done=True)
            creating = asyncio.ensure_future(failure(_create(stage, gateway)))
            await asyncio.wait_for(held.reached.wait(), 30)
            await _delete(deleting)
            stage.heal()
            assert (await creating).reason == "CREATE_FAILED"
            assert await stage.empty()


async def test_a_delete_can_be_repeated_with_its_request_id(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    request = _request(request_id=str(uuid.uuid4()))
    for _ in range(2):
        await gateway.workspaces.DeleteWorkspace(request)
    await gateway.workspaces.CreateWorkspace(stage.create())
    await gateway.workspaces.DeleteWorkspace(request)
    got = await gateway.workspaces.GetWorkspace(pb.GetWorkspaceRequest(name=DEMO))
    assert got.workspace.state == pb.Workspace.STATE_READY


async def test_a_delete_whose_step_fails_is_done_by_a_retry(stage: Stage, gateway: Gateway) -> None:
    for proxy, rpc in (
        (stage.provider, "ReleaseEnvironment"),
        (stage.executor, "DeleteExecutions"),
        (stage.git, "RemoveWorktree"),
        (stage.registry, "DeregisterEnvironment"),
    ):
        await gateway.workspaces.CreateWorkspace(stage.create())
        proxy.fail(rpc, Unavailable("away"), times=1)
        request = _request(request_id=str(uuid.uuid4()))
        assert (await failure(gateway.workspaces.DeleteWorkspace(request))).reason
        await eventually(_deleted(gateway, request))
        assert await stage.empty()


async def test_a_delete_that_nobody_retries_is_finished(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    stage.git.fail("RemoveWorktree", Unavailable("away"), times=1)
    await failure(gateway.workspaces.DeleteWorkspace(_request()))
    await eventually(stage.empty)


async def test_deletes_at_two_gateways_at_once_do_it_once(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    async with stage.gateway("other") as other:
        held = stage.git.hold("RemoveWorktree")
        first = asyncio.ensure_future(_delete(gateway))
        await asyncio.wait_for(held.reached.wait(), 30)
        failed = await failure(other.workspaces.DeleteWorkspace(_request()))
        assert failed.reason == "OPERATION_IN_PROGRESS"
        stage.git.heal()
        await first
    assert await stage.empty()


async def test_a_running_command_does_not_hold_up_a_delete(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    await gateway.executions.StartExecution(
        pb.StartExecutionRequest(
            parent=DEMO,
            execution=executor_pb2.Execution(
                spec=executor_pb2.ExecutionSpec(argv=["sleep", "1000"])
            ),
        )
    )
    await _delete(gateway)
    assert await stage.empty()


def _request(**fields: Any) -> pb.DeleteWorkspaceRequest:
    return pb.DeleteWorkspaceRequest(name=DEMO, **fields)


async def _delete(gateway: Gateway, **fields: Any) -> pb.DeleteWorkspaceResponse:
    return await gateway.workspaces.DeleteWorkspace(_request(**fields))


async def _create(stage: Stage, gateway: Gateway) -> pb.Workspace:
    return (await gateway.workspaces.CreateWorkspace(stage.create())).workspace


async def _run(gateway: Gateway, script: str) -> str:
    spec = executor_pb2.ExecutionSpec(script=script)
    answer = await gateway.executions.Execute(pb.ExecuteRequest(name=DEMO, spec=spec))
    assert answer.execution.exit.code == 0, answer
    return answer.stdout.text


async def _refused_run(gateway: Gateway) -> str:
    spec = executor_pb2.ExecutionSpec(script="true")
    failed = await failure(gateway.executions.Execute(pb.ExecuteRequest(name=DEMO, spec=spec)))
    assert failed.code is grpc.StatusCode.FAILED_PRECONDITION
    assert failed.reason == "WORKSPACE_NOT_READY"
    return str(failed.info.metadata["state"])


def _deleted(gateway: Gateway, request: pb.DeleteWorkspaceRequest) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        try:
            await gateway.workspaces.DeleteWorkspace(request)
        except grpc.aio.AioRpcError:
            return False
        return True

    return check
