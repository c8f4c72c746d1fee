"""Operations that do not come to an end, and deletes that do not wait for them."""

import asyncio
from datetime import timedelta

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from cove.gateway.v1 import gateway_pb2 as pb
from cove.registry.v1 import registry_pb2
from servicekit.errors import Unavailable
from tests.gateway.stage import LIMIT, Gateway, Stage, State, eventually
from tests.gateway.steps import run
from tests.servicekit.failing import failure

DEMO = "workspaces/demo"
SHORT = timedelta(seconds=3)
NONE = registry_pb2.Environment.OPERATION_NONE


@pytest.mark.long
async def test_a_delete_that_does_not_end_in_time_fails_and_can_be_repeated(stage: Stage) -> None:
    async with stage.gateway(operation_limit=SHORT, lease=SHORT) as gateway:
        await gateway.workspaces.CreateWorkspace(stage.create())
        stage.git.fail("RemoveWorktree", Unavailable("git is away"))
        told = await failure(gateway.workspaces.DeleteWorkspace(_delete()))
        assert told.reason == "SERVICE_UNAVAILABLE"
        failed = await _failed(stage)
        assert failed.failure.reason == "ERROR_REASON_OPERATION_TIMED_OUT"
        assert "DELETING" in failed.failure.message
        assert "git is away" in failed.failure.message
        assert failed.failure.remedy
        stage.heal()
        await gateway.workspaces.DeleteWorkspace(_delete())
        assert await stage.empty()


@pytest.mark.long
async def test_an_undoing_that_does_not_end_in_time_fails(stage: Stage) -> None:
    async with stage.gateway(operation_limit=SHORT, lease=SHORT) as gateway:
        stage.git.fail("RemoveWorktree", Unavailable("git is away"))
        request = stage.create(spec={"revision": "no-such"})
        assert (await failure(gateway.workspaces.CreateWorkspace(request))).reason
        failed = await _failed(stage)
        assert "CREATING" in failed.failure.message
        stage.heal()
        await gateway.workspaces.DeleteWorkspace(_delete())
        assert await stage.empty()


@pytest.mark.long
async def test_an_update_that_does_not_come_into_force_in_time_fails(stage: Stage) -> None:
    async with stage.gateway(operation_limit=SHORT, lease=SHORT) as gateway:
        await gateway.workspaces.CreateWorkspace(stage.create())
        stage.provider.fail("UpdateNetwork", Unavailable("the proxy is away"))
        assert (await failure(gateway.workspaces.UpdateWorkspace(_update()))).reason
        failed = await _failed(stage)
        assert "UPDATING" in failed.failure.message
        assert failed.operation == NONE


@pytest.mark.long
async def test_what_is_broken_off_says_after_how_long(stage: Stage) -> None:
    """In seconds, however many they are: of a day it said 0."""
    async with stage.gateway(create_limit=timedelta(milliseconds=500)) as gateway:
        stage.git.hold("CreateWorktree")
        told = await failure(gateway.workspaces.CreateWorkspace(stage.create()))
        assert told.reason == "DEADLINE_EXCEEDED"
        assert told.info.metadata["seconds"] == "0.5"
        stage.heal()
        await eventually(stage.settled)


async def test_a_delete_does_not_wait_for_an_update(stage: Stage, gateway: Gateway) -> None:
    """Of the same gateway, or of another that does not hear of it."""
    async with stage.gateway("other") as other:
        for updating in (gateway, other):
            await gateway.workspaces.CreateWorkspace(stage.create())
            held = stage.provider.hold("UpdateNetwork")
            update = asyncio.ensure_future(failure(updating.workspaces.UpdateWorkspace(_update())))
            await asyncio.wait_for(held.reached.wait(), LIMIT)
            await gateway.workspaces.DeleteWorkspace(_delete())
            stage.heal()
            assert (await update).reason == "LEASE_LOST"
            assert await stage.empty()


async def test_a_delete_does_not_wait_for_a_gateway_that_stands_still(stage: Stage) -> None:
    async with stage.gateway() as gateway, stage.gateway_process() as paused:
        held = stage.git.hold("CreateWorktree", done=True)
        creating = asyncio.ensure_future(paused.workspaces.CreateWorkspace(stage.create()))
        await asyncio.wait_for(held.reached.wait(), LIMIT)
        paused.pause()
        stage.heal()
        await gateway.workspaces.DeleteWorkspace(_delete())
        assert await stage.empty()
        await gateway.workspaces.CreateWorkspace(stage.create())
        paused.wake()
        await asyncio.wait((creating,), timeout=LIMIT)
        assert await run(gateway) == "hello\n"


def _delete() -> pb.DeleteWorkspaceRequest:
    return pb.DeleteWorkspaceRequest(name=DEMO)


def _update() -> pb.UpdateWorkspaceRequest:
    workspace = pb.Workspace(name=DEMO, spec=registry_pb2.EnvironmentSpec())
    workspace.spec.network.allow.add(host="127.0.0.1", ports=[80])
    return pb.UpdateWorkspaceRequest(
        workspace=workspace, update_mask=FieldMask(paths=["spec.network"])
    )


async def _failed(stage: Stage) -> registry_pb2.Environment:
    async def failed() -> bool:
        return [each.state for each in await stage.records()] == [State.STATE_FAILED]

    await eventually(failed)
    return (await stage.records())[0]
