"""What tools have lost of a workspace, and what gateways make of it."""

import asyncio
import shutil
from datetime import timedelta
from pathlib import Path

from cove.gateway.v1 import gateway_pb2 as pb
from cove.git.v1 import git_pb2
from cove.git.v1.git_pb2_grpc import GitServiceStub
from cove.provider.v1 import provider_pb2
from cove.provider.v1.provider_pb2_grpc import ProviderServiceStub
from cove.registry.v1 import registry_pb2
from cove.registry.v1.registry_pb2_grpc import RegistryServiceStub
from servicekit.errors import Unavailable
from tests.gateway.stage import Gateway, Stage, State, eventually
from tests.gateway.steps import run
from tests.servicekit.failing import failure

DEMO = "workspaces/demo"
NONE = registry_pb2.Environment.OPERATION_NONE
LONG = timedelta(minutes=1)


async def test_a_workspace_whose_files_are_gone_fails_and_can_be_deleted(
    stage: Stage, gateway: Gateway
) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    await _remove_worktree(stage)
    failed = await _failed(stage)
    assert failed.failure.reason == "ERROR_REASON_WORKTREE_LOST"
    assert failed.failure.message
    assert failed.failure.remedy
    assert failed.operation == NONE
    told = await failure(gateway.executions.Execute(_true()))
    assert told.reason == "WORKSPACE_NOT_READY"
    await gateway.workspaces.DeleteWorkspace(pb.DeleteWorkspaceRequest(name=DEMO))
    assert await stage.empty()


async def test_a_sandbox_that_is_gone_is_made_again(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    assert await run(gateway, "echo work > work.txt; cat work.txt") == "work\n"
    await _release(stage)
    await eventually(lambda: _provisioned(stage))
    assert await run(gateway, "cat work.txt") == "work\n"
    await eventually(stage.settled)
    assert [each.state for each in await stage.records()] == [State.STATE_READY]


async def test_a_sandbox_that_cannot_be_made_again_fails_the_workspace_and_keeps_its_work(
    stage: Stage, gateway: Gateway
) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    await run(gateway, "echo precious > work.txt")
    uid = (await stage.records())[0].uid
    outside = stage.state / "git" / "worktrees" / uid / "outside"
    shutil.move(outside, stage.state / "outside")
    await _release(stage)
    failed = await _failed(stage)
    assert failed.failure.reason == "ERROR_REASON_ENVIRONMENT_LOST"
    shutil.move(stage.state / "outside", outside)
    await gateway.workspaces.DeleteWorkspace(pb.DeleteWorkspaceRequest(name=DEMO))
    await gateway.workspaces.UndeleteWorkspace(pb.UndeleteWorkspaceRequest(name=DEMO))
    assert await run(gateway, "cat work.txt") == "precious\n"


async def test_nothing_is_lost_before_the_grace_period(stage: Stage) -> None:
    async with stage.gateway() as gateway:
        await gateway.workspaces.CreateWorkspace(stage.create())
    await _release(stage)
    async with stage.gateway(orphan_grace=LONG):
        await _looked(stage, 3)
    assert not await _provisioned(stage)
    assert "ClaimOperation" not in stage.registry.calls


async def test_a_tool_that_is_away_has_lost_nothing(stage: Stage) -> None:
    async with stage.gateway() as gateway:
        await gateway.workspaces.CreateWorkspace(stage.create())
    stage.forget()
    stage.provider.fail("ListProvisioned", Unavailable("away"))
    async with stage.gateway():
        await _looked(stage, 3)
    stage.heal()
    assert "ClaimOperation" not in stage.registry.calls
    assert [each.state for each in await stage.records()] == [State.STATE_READY]


async def test_two_gateways_mark_it_once(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    async with stage.gateway("other"):
        stage.forget()
        await _remove_worktree(stage)
        await _failed(stage)
        await _looked(stage, 4)
    assert stage.registry.calls.count("UpdateEnvironmentStatus") == 1


async def test_executions_without_a_workspace_are_removed(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    await run(gateway)
    uid = (await stage.records())[0].uid
    kept = stage.state / "executor" / "executions" / uid
    assert kept.exists()
    await _remove_worktree(stage)
    await _release(stage)
    async with stage.direct("registry") as channel:
        request = registry_pb2.DeregisterEnvironmentRequest(name="environments/demo")
        await RegistryServiceStub(channel).DeregisterEnvironment(request)
    await eventually(lambda: _gone(kept))


async def test_a_handle_that_moved_is_noted(stage: Stage, gateway: Gateway) -> None:
    """Made by another hand, whose record knows of no handle yet."""
    async with stage.direct("registry") as channel:
        registry = RegistryServiceStub(channel)
        request = registry_pb2.RegisterEnvironmentRequest(
            environment_id="demo",
            environment=registry_pb2.Environment(),
            holder="test",
        )
        request.lease.FromTimedelta(LONG)
        made = (await registry.RegisterEnvironment(request)).environment
        async with stage.direct("git") as git:
            tree = git_pb2.CreateWorktreeRequest(uid=made.uid, branch="cove/demo")
            mount = (await GitServiceStub(git).CreateWorktree(tree)).mount
        async with stage.direct("provider") as provider:
            wanted = provider_pb2.ProvisionEnvironmentRequest(uid=made.uid, mount=mount)
            handle = (await ProviderServiceStub(provider).ProvisionEnvironment(wanted)).handle
        await registry.UpdateEnvironmentStatus(
            registry_pb2.UpdateEnvironmentStatusRequest(
                name=made.name, state=State.STATE_READY, release_operation=True
            )
        )

    async def noted() -> bool:
        record = (await stage.records())[0]
        return (record.handle, record.handle_generation) == (handle, 1)

    await eventually(noted)
    assert await run(gateway, "echo here") == "here\n"


def _true() -> pb.ExecuteRequest:
    request = pb.ExecuteRequest(name=DEMO)
    request.spec.argv.append("true")
    return request


async def _remove_worktree(stage: Stage) -> None:
    """Behind the back of all gateways."""
    uid = (await stage.records())[0].uid
    async with stage.direct("git") as channel:
        request = git_pb2.RemoveWorktreeRequest(uid=uid)
        await GitServiceStub(channel).RemoveWorktree(request)


async def _release(stage: Stage) -> None:
    uid = (await stage.records())[0].uid
    async with stage.direct("provider") as channel:
        request = provider_pb2.ReleaseEnvironmentRequest(uid=uid)
        await ProviderServiceStub(channel).ReleaseEnvironment(request)


async def _provisioned(stage: Stage) -> bool:
    async with stage.direct("provider") as channel:
        request = provider_pb2.ListProvisionedRequest()
        return bool((await ProviderServiceStub(channel).ListProvisioned(request)).observations)


async def _failed(stage: Stage) -> registry_pb2.Environment:
    async def failed() -> bool:
        return [each.state for each in await stage.records()] == [State.STATE_FAILED]

    await eventually(failed)
    return (await stage.records())[0]


async def _gone(path: Path) -> bool:
    return not await asyncio.to_thread(path.exists)


async def _looked(stage: Stage, times: int) -> None:
    before = stage.registry.calls.count("ListEnvironments")

    async def looked() -> bool:
        return stage.registry.calls.count("ListEnvironments") >= before + times

    await eventually(looked)
