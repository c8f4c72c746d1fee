"""A gateway that stands still for longer than its lease, and wakes up."""

from typing import Any, Final

import grpc
import pytest

from cove.executor.v1.executor_pb2 import DeleteExecutionsRequest
from cove.executor.v1.executor_pb2_grpc import ExecutorServiceStub
from cove.gateway.v1 import gateway_pb2 as pb
from cove.git.v1 import git_pb2
from cove.git.v1.git_pb2_grpc import GitServiceStub
from cove.mount.v1.mount_pb2 import Mount
from cove.provider.v1 import provider_pb2
from cove.provider.v1.provider_pb2_grpc import ProviderServiceStub
from tests.gateway.stage import Gateway, Stage, State, eventually
from tests.gateway.steps import LEASE, Step, begun, run
from tests.servicekit.failing import failure

CREATES: Final = [
    Step("before-git", "registry", "RegisterEnvironment", done=True),
    Step("before-provider", "git", "CreateWorktree", done=True),
    Step("before-record", "provider", "ProvisionEnvironment", done=True),
]
DELETES: Final = [
    Step("before-release", "registry", "UpdateEnvironmentStatus", done=True),
    Step("before-executions", "provider", "ReleaseEnvironment", done=True),
    Step("before-worktree", "executor", "DeleteExecutions", done=True),
]
THEN: Final = {
    "before-git": ("git", "CreateWorktree"),
    "before-provider": ("provider", "ProvisionEnvironment"),
    "before-record": ("registry", "UpdateEnvironment"),
    "before-release": ("provider", "ReleaseEnvironment"),
    "before-executions": ("executor", "DeleteExecutions"),
    "before-worktree": ("git", "RemoveWorktree"),
}
"""What a gateway does after each of these steps."""
UID: Final = "a234567a234567ab"


@pytest.mark.long
async def test_a_create_that_was_taken_over_and_deleted_makes_nothing_when_it_wakes_up(
    stage: Stage,
) -> None:
    requests = {step: stage.create(step.id) for step in CREATES}
    async with stage.gateway_process(LEASE.total_seconds()) as paused:
        ended = await _paused_at(stage, paused, "CreateWorkspace", requests)
        async with stage.gateway() as other:
            await eventually(stage.settled)
            records = await stage.records()
            assert [each.state for each in records] == [State.STATE_READY] * len(CREATES)
            for step in CREATES:
                request = pb.DeleteWorkspaceRequest(name=_name(step), force=True)
                await other.workspaces.DeleteWorkspace(request)
            assert await stage.empty()
            await _woken(stage, paused, CREATES)
            await ended
            assert await stage.empty()


async def test_a_delete_that_was_taken_over_removes_nothing_when_it_wakes_up(
    stage: Stage,
) -> None:
    async with stage.gateway() as gateway:
        for step in DELETES:
            await gateway.workspaces.CreateWorkspace(stage.create(step.id))
            await run(gateway, "echo precious > work.txt", _name(step))
    requests = {step: pb.DeleteWorkspaceRequest(name=_name(step), force=True) for step in DELETES}
    async with stage.gateway_process(LEASE.total_seconds()) as paused:
        ended = await _paused_at(stage, paused, "DeleteWorkspace", requests)
        async with stage.gateway() as other:
            await eventually(stage.settled)
            for step in DELETES:
                request = pb.UndeleteWorkspaceRequest(name=_name(step))
                await other.workspaces.UndeleteWorkspace(request)
                assert await run(other, "cat work.txt", _name(step)) == "precious\n"
            await _woken(stage, paused, DELETES)
            await paused.kill()
            await ended
            for step in DELETES:
                listing = pb.ListExecutionsRequest(parent=_name(step))
                kept = await other.executions.ListExecutions(listing)
                assert len(kept.executions) == 1, step
                assert await run(other, "cat work.txt", _name(step)) == "precious\n", step


async def test_a_tool_acts_for_the_latest_holder_only(stage: Stage) -> None:
    async with stage.direct("git") as channel:
        git = GitServiceStub(channel)
        create = git_pb2.CreateWorktreeRequest(
            uid=UID, repository=f"file://{stage.repository}", branch="cove/late"
        )
        remove = git_pb2.RemoveWorktreeRequest(uid=UID)
        made = await git.CreateWorktree(create, metadata=_under(5))
        await git.RemoveWorktree(remove, metadata=_under(9))
        await _refused(git.CreateWorktree(create, metadata=_under(5)))
        await git.CreateWorktree(create, metadata=_under(9))
        await _refused(git.RemoveWorktree(remove, metadata=_under(8)))
        fork = git_pb2.ForkWorktreeRequest(uid=UID, source_uid=UID, branch="cove/b")
        await _refused(git.ForkWorktree(fork, metadata=_under(8)))
        await _provider_acts_for_the_latest(stage, made.mount)
        assert (await git.RemoveWorktree(remove)).existed  # As an operator would.
    async with stage.direct("executor") as channel:
        delete = DeleteExecutionsRequest(parent=f"environments/{UID}")
        executor = ExecutorServiceStub(channel)
        await executor.DeleteExecutions(delete, metadata=_under(9))
        await _refused(executor.DeleteExecutions(delete, metadata=_under(8)))


async def _provider_acts_for_the_latest(stage: Stage, mount: Mount) -> None:
    async with stage.direct("provider") as channel:
        provider = ProviderServiceStub(channel)
        provision = provider_pb2.ProvisionEnvironmentRequest(uid=UID, mount=mount)
        release = provider_pb2.ReleaseEnvironmentRequest(uid=UID)
        handle = (await provider.ProvisionEnvironment(provision, metadata=_under(9))).handle
        for late in (
            provider.ProvisionEnvironment(provision, metadata=_under(8)),
            provider.ReleaseEnvironment(release, metadata=_under(8)),
            provider.ActivateEnvironment(
                provider_pb2.ActivateEnvironmentRequest(handle=handle), metadata=_under(8)
            ),
        ):
            await _refused(late)
        assert (await provider.ReleaseEnvironment(release)).existed


async def _paused_at(stage: Stage, victim: Gateway, method: str, requests: dict[Step, Any]) -> Any:
    """Stop a gateway when each request has come to its step, for longer than its lease, and let
    the answers come to it."""
    # A renewal that was on its way when it stopped would end what it is at, were its lease short.
    ended = await begun(stage, victim, method, requests)
    victim.pause()
    stage.times.pass_(2 * LEASE)
    stage.heal()
    for step in requests:  # So that it is not by a renewal that it learns of the one who came.
        stage.registry.hold("RenewOperation", correlation_id=step.id)
    return ended


async def _woken(stage: Stage, paused: Gateway, steps: list[Step]) -> None:
    """Wake it up, and wait until it has gone on where it was, everywhere."""
    stage.forget()
    paused.wake()

    async def tried() -> bool:
        return all(THEN[step.id][1] in getattr(stage, THEN[step.id][0]).refused for step in steps)

    await eventually(tried)


def _name(step: Step) -> str:
    return f"workspaces/{step.id}"


def _under(token: int) -> tuple[tuple[str, str], ...]:
    return (("cove-fencing-token", f"{UID}/{token}"),)


async def _refused(call: Any) -> None:
    failed = await failure(call)
    assert (failed.code, failed.reason) == (grpc.StatusCode.ABORTED, "LEASE_LOST")
