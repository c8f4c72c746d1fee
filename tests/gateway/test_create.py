"""Creating a workspace: what comes of it when a step fails, and when it is asked for again."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TypeAlias

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.gateway.v1 import gateway_pb2 as pb
from servicekit.errors import FailedPrecondition, ResourceExhausted, Unavailable
from tests.gateway.stage import Gateway, Stage, eventually
from tests.servicekit.failing import failure

Check: TypeAlias = Callable[[], Awaitable[bool]]

ABORTED = grpc.StatusCode.ABORTED
READY = pb.Workspace.STATE_READY
SHORT = timedelta(seconds=1)
LONG = timedelta(minutes=1)
STEPS = [
    ("provider", "ValidateSpec"),
    ("registry", "RegisterEnvironment"),
    ("git", "CreateWorktree"),
    ("provider", "ProvisionEnvironment"),
    ("registry", "UpdateEnvironment"),
]


class Refused(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_CAPABILITY_MISSING


class DiskFull(ResourceExhausted):
    reason = ErrorReason.ERROR_REASON_DISK_FULL


async def test_a_created_workspace_is_ready_and_tells_what_it_is_made_of(
    stage: Stage, gateway: Gateway
) -> None:
    made = (await gateway.workspaces.CreateWorkspace(stage.create())).workspace
    assert made.name == "workspaces/demo"
    assert made.state == READY
    assert made.branch == "cove/demo"
    assert len(made.base_commit) == 40
    assert made.head_commit == made.base_commit
    assert made.creator == "anonymous"
    got = await gateway.workspaces.GetWorkspace(pb.GetWorkspaceRequest(name=made.name))
    assert got.workspace == made


async def test_a_workspace_without_id_gets_one(stage: Stage, gateway: Gateway) -> None:
    made = (await gateway.workspaces.CreateWorkspace(stage.create(""))).workspace
    assert made.name.removeprefix("workspaces/")
    assert made.branch == made.name.replace("workspaces/", "cove/")


async def test_a_taken_id_is_refused_by_the_name_of_the_workspace(
    stage: Stage, gateway: Gateway
) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    failed = await failure(gateway.workspaces.CreateWorkspace(stage.create()))
    assert failed.code is grpc.StatusCode.ALREADY_EXISTS
    assert failed.reason == "WORKSPACE_EXISTS"
    assert failed.info.metadata["name"] == "workspaces/demo"


@pytest.mark.parametrize("error", [Refused("no"), DiskFull("full"), Unavailable("away")])
@pytest.mark.parametrize(("tool", "rpc"), STEPS)
async def test_nothing_is_left_of_a_create_whose_step_fails(
    stage: Stage, gateway: Gateway, tool: str, rpc: str, error: Exception
) -> None:
    getattr(stage, tool).fail(rpc, error)
    failed = await failure(gateway.workspaces.CreateWorkspace(stage.create()))
    assert failed.status.message == str(error)
    assert not await stage.left()


@pytest.mark.parametrize(("tool", "rpc"), [*STEPS[2:], ("registry", "UpdateEnvironmentStatus")])
async def test_nothing_is_left_of_a_create_whose_step_is_done_but_seems_to_fail(
    stage: Stage, tool: str, rpc: str
) -> None:
    getattr(stage, tool).fail(rpc, Refused("no"), times=1, done=True)
    # With the last step the lease is given back: a renewal would tell of that first.
    async with stage.gateway(lease=LONG) as gateway:
        failed = await failure(gateway.workspaces.CreateWorkspace(stage.create()))
        assert failed.reason == "CAPABILITY_MISSING"
        await eventually(stage.empty)


async def test_a_create_whose_registration_is_done_but_seems_lost_is_finished(stage: Stage) -> None:
    async with stage.gateway(lease=SHORT) as gateway:
        request = stage.create(request_id=str(uuid.uuid4()))
        stage.registry.fail("RegisterEnvironment", Unavailable("away"), times=1, done=True)
        assert (await failure(gateway.workspaces.CreateWorkspace(request))).reason
        assert (await _created(gateway, request)).state == READY


async def test_the_failure_of_a_step_comes_whole_and_names_the_step(
    stage: Stage, gateway: Gateway
) -> None:
    failed = await failure(
        gateway.workspaces.CreateWorkspace(stage.create(spec={"revision": "no-such"}))
    )
    assert failed.code is grpc.StatusCode.NOT_FOUND
    assert failed.reason == "REVISION_NOT_FOUND"
    assert failed.info.metadata["revision"] == "no-such"
    assert failed.info.metadata["step"] == "worktree"
    assert not await stage.left()


async def test_a_bad_field_is_named_as_its_caller_wrote_it(stage: Stage, gateway: Gateway) -> None:
    failed = await failure(
        gateway.workspaces.CreateWorkspace(stage.create(spec={"branch": "a..b"}))
    )
    assert failed.reason == "BRANCH_INVALID"
    fields = [each.field for each in failed.detail(BadRequest).field_violations]
    assert fields == ["workspace.spec.branch"]


async def test_a_tool_that_is_away_is_named(stage: Stage, gateway: Gateway) -> None:
    stage.git.fail("CreateWorktree")
    failed = await failure(gateway.workspaces.CreateWorkspace(stage.create()))
    assert failed.code is grpc.StatusCode.UNAVAILABLE
    assert failed.reason == "SERVICE_UNAVAILABLE"
    assert failed.info.metadata["service"] == "git"
    assert not await stage.left()


async def test_a_connection_that_breaks_once_is_not_noticed(stage: Stage, gateway: Gateway) -> None:
    for proxy in (stage.registry, stage.git, stage.provider):
        for rpc in ("RegisterEnvironment", "CreateWorktree", "ProvisionEnvironment"):
            proxy.fail(rpc, times=1, done=True)
    made = await gateway.workspaces.CreateWorkspace(stage.create())
    assert made.workspace.state == READY


async def test_a_failed_create_that_is_kept_says_why_and_stands_on_nothing(
    stage: Stage, gateway: Gateway
) -> None:
    stage.provider.fail("ProvisionEnvironment", Refused("not here"))
    await failure(gateway.workspaces.CreateWorkspace(stage.create(on_failure=pb.ON_FAILURE_KEEP)))
    got = await gateway.workspaces.GetWorkspace(pb.GetWorkspaceRequest(name="workspaces/demo"))
    assert got.workspace.state == pb.Workspace.STATE_FAILED
    assert got.workspace.failure.reason == "ERROR_REASON_CAPABILITY_MISSING"
    assert got.workspace.failure.message == "not here"
    assert await stage.left() == {"record environments/demo"}
    await gateway.workspaces.DeleteWorkspace(pb.DeleteWorkspaceRequest(name="workspaces/demo"))
    assert not await stage.left()


async def test_what_cannot_be_undone_at_once_is_undone_later(stage: Stage) -> None:
    async with stage.gateway(lease=SHORT) as gateway:
        stage.provider.fail("ProvisionEnvironment", Refused("no"), times=1)
        stage.git.fail("RemoveWorktree", Unavailable("away"))
        failed = await failure(gateway.workspaces.CreateWorkspace(stage.create()))
        assert failed.reason == "CAPABILITY_MISSING"
        assert await stage.left()
        stage.git.heal()
        await eventually(stage.empty)


async def test_a_create_goes_on_when_its_caller_leaves(stage: Stage, gateway: Gateway) -> None:
    held = stage.git.hold("CreateWorktree")
    call = gateway.workspaces.CreateWorkspace(stage.create())
    await asyncio.wait_for(held.reached.wait(), 30)
    call.cancel()
    stage.git.heal()
    await eventually(_is_ready(gateway))


async def test_a_create_that_is_only_accepted_shows_its_progress(stage: Stage) -> None:
    async with stage.gateway("watched", progress_interval=timedelta(milliseconds=1)) as gateway:
        async with a_remote_that_says_nothing() as url:
            request = stage.create(return_when=pb.RETURN_WHEN_ACCEPTED, spec={"repository": url})
            accepted = await gateway.workspaces.CreateWorkspace(request)
            assert accepted.workspace.state == pb.Workspace.STATE_PENDING
            await eventually(_shows(gateway, "asking the remote"))
        await eventually(stage.empty)


async def test_a_create_that_is_only_accepted_becomes_ready(gateway: Gateway, stage: Stage) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create(return_when=pb.RETURN_WHEN_ACCEPTED))
    await eventually(_is_ready(gateway))


async def test_a_retry_with_the_same_request_id_joins_the_create(
    stage: Stage, gateway: Gateway
) -> None:
    held = stage.git.hold("CreateWorktree")
    request = stage.create(request_id=str(uuid.uuid4()))
    calls = [asyncio.ensure_future(_created(gateway, request)) for _ in range(5)]
    await asyncio.wait_for(held.reached.wait(), 30)
    stage.git.heal()
    made = await asyncio.gather(*calls)
    assert len({each.uid for each in made}) == 1
    assert made[0] == await _created(gateway, request)
    assert stage.git.calls.count("CreateWorktree") == 1


async def test_a_retry_at_another_gateway_joins_the_create(stage: Stage, gateway: Gateway) -> None:
    held = stage.git.hold("CreateWorktree")
    request = stage.create("", request_id=str(uuid.uuid4()))
    async with stage.gateway("other") as other:
        first = asyncio.ensure_future(_created(gateway, request))
        await asyncio.wait_for(held.reached.wait(), 30)
        second = asyncio.ensure_future(_created(other, request))
        await eventually(_called(stage, "RegisterEnvironment", 2))
        stage.git.heal()
        assert (await first).uid == (await second).uid
    assert stage.git.calls.count("CreateWorktree") == 1


async def test_a_failed_create_is_made_anew_by_a_retry_with_its_request_id(
    stage: Stage, gateway: Gateway
) -> None:
    request = stage.create(request_id=str(uuid.uuid4()))
    stage.provider.fail("ProvisionEnvironment", Unavailable("away"), times=2)
    for _ in range(2):
        assert (await failure(gateway.workspaces.CreateWorkspace(request))).reason
    assert (await _created(gateway, request)).state == READY


async def test_a_retry_while_its_create_is_being_undone_is_told_to_wait(stage: Stage) -> None:
    async with stage.gateway(lease=SHORT) as gateway, stage.gateway("other", lease=SHORT) as other:
        request = stage.create(request_id=str(uuid.uuid4()))
        stage.provider.fail("ProvisionEnvironment", Unavailable("away"), times=1)
        stage.git.fail("RemoveWorktree", Unavailable("away"))
        assert (await failure(gateway.workspaces.CreateWorkspace(request))).reason
        for each in (gateway, other):
            failed = await failure(each.workspaces.CreateWorkspace(request))
            assert (failed.code, failed.reason) == (ABORTED, "OPERATION_IN_PROGRESS")
        stage.git.heal()
        await eventually(stage.empty)
        assert (await _created(gateway, request)).state == READY


async def test_a_retry_that_comes_while_the_last_of_it_is_undone_makes_it_anew(
    stage: Stage,
) -> None:
    async with stage.gateway(lease=SHORT) as gateway:
        request = stage.create(request_id=str(uuid.uuid4()))
        stage.provider.fail("ProvisionEnvironment", Unavailable("away"), times=1)
        stage.git.fail("RemoveWorktree", Unavailable("away"))
        assert (await failure(gateway.workspaces.CreateWorkspace(request))).reason
        looking = stage.registry.hold("GetEnvironment", correlation_id="retry")
        retry = gateway.workspaces.CreateWorkspace(request, metadata=(("x-request-id", "retry"),))
        await asyncio.wait_for(looking.reached.wait(), 30)
        stage.git.heal()
        await eventually(stage.empty)
        stage.registry.heal()
        assert (await retry).workspace.state == READY


async def test_a_retry_joins_what_could_not_be_undone_and_was_finished(stage: Stage) -> None:
    async with stage.gateway(lease=SHORT) as gateway:
        request = stage.create(request_id=str(uuid.uuid4()))
        stage.provider.fail("ProvisionEnvironment", Unavailable("away"), times=1)
        stage.registry.fail("UpdateEnvironmentStatus", Refused("no"))
        assert (await failure(gateway.workspaces.CreateWorkspace(request))).reason
        stage.registry.heal()
        await eventually(_is_ready(gateway))
        (record,) = await stage.records()
        assert (await _created(gateway, request)).uid == record.uid


async def test_what_failed_while_the_registry_was_full_is_undone_before_that_is_told(
    stage: Stage, gateway: Gateway
) -> None:
    stage.provider.fail("ProvisionEnvironment", Refused("no"), times=1)
    stage.registry.fail("UpdateEnvironmentStatus", DiskFull("full"))
    creating = asyncio.ensure_future(failure(gateway.workspaces.CreateWorkspace(stage.create())))
    await eventually(_called(stage, "UpdateEnvironmentStatus", 2))
    assert not creating.done()
    stage.registry.heal()
    assert (await creating).reason == "CAPABILITY_MISSING"
    assert not await stage.left()


@pytest.mark.parametrize("id_", ["demo", ""])
async def test_a_retry_joins_what_was_begun_anew_at_another_gateway(
    stage: Stage, gateway: Gateway, id_: str
) -> None:
    request = stage.create(id_, request_id=str(uuid.uuid4()))
    stage.provider.fail("ProvisionEnvironment", Unavailable("away"), times=1)
    assert (await failure(gateway.workspaces.CreateWorkspace(request))).reason
    held = stage.git.hold("CreateWorktree")
    anew = asyncio.ensure_future(_created(gateway, request))
    await asyncio.wait_for(held.reached.wait(), 30)
    async with stage.gateway("other") as other:
        joined = asyncio.ensure_future(_created(other, request))
        await eventually(_called(stage, "RegisterEnvironment", 5))
        stage.git.heal()
        assert (await joined).uid == (await anew).uid
        assert (await joined).state == READY


async def test_a_retry_of_what_is_gone_is_not_given_what_others_have_now(
    stage: Stage, gateway: Gateway
) -> None:
    request = stage.create(request_id=str(uuid.uuid4()))
    await _created(gateway, request)
    await gateway.workspaces.DeleteWorkspace(pb.DeleteWorkspaceRequest(name="workspaces/demo"))
    await _created(gateway, stage.create(request_id=str(uuid.uuid4())))
    failed = await failure(gateway.workspaces.CreateWorkspace(request))
    assert (failed.code, failed.reason) == (ABORTED, "CREATE_FAILED")


async def test_a_retry_after_the_delete_makes_nothing(stage: Stage, gateway: Gateway) -> None:
    request = stage.create(request_id=str(uuid.uuid4()))
    await _created(gateway, request)
    await gateway.workspaces.DeleteWorkspace(pb.DeleteWorkspaceRequest(name="workspaces/demo"))
    failed = await failure(gateway.workspaces.CreateWorkspace(request))
    assert failed.reason == "CREATE_FAILED"
    assert not await stage.left()


async def test_a_request_id_with_other_content_is_refused(stage: Stage, gateway: Gateway) -> None:
    request_id = str(uuid.uuid4())
    await _created(gateway, stage.create(request_id=request_id))
    other = stage.create("other", request_id=request_id)
    failed = await failure(gateway.workspaces.CreateWorkspace(other))
    assert failed.reason == "REQUEST_ID_REUSED"
    assert failed.info.metadata["request_id"] == request_id


async def test_a_hundred_creates_of_one_id_at_two_gateways_make_one_workspace(
    stage: Stage, gateway: Gateway
) -> None:
    async with stage.gateway("other") as other:
        results = await asyncio.gather(
            *(_created(each, stage.create()) for _ in range(20) for each in (gateway, other)),
            return_exceptions=True,
        )
    made = [each for each in results if isinstance(each, pb.Workspace)]
    assert len(made) == 1
    assert len(await stage.left()) == 4  # Record, worktree, ref, provisioned.


async def test_a_lease_is_renewed_for_as_long_as_the_create_takes(stage: Stage) -> None:
    async with stage.gateway(lease=SHORT) as gateway:
        held = stage.git.hold("CreateWorktree")
        call = asyncio.ensure_future(_created(gateway, stage.create()))
        await asyncio.wait_for(held.reached.wait(), 30)
        (before,) = await stage.records()
        await eventually(_called(stage, "RenewOperation", 5))
        (after,) = await stage.records()
        assert after.fencing_token == before.fencing_token
        assert after.lease_expire_time.ToNanoseconds() > before.lease_expire_time.ToNanoseconds()
        stage.git.heal()
        assert (await call).state == READY


async def _created(gateway: Gateway, request: pb.CreateWorkspaceRequest) -> pb.Workspace:
    return (await gateway.workspaces.CreateWorkspace(request)).workspace


@asynccontextmanager
async def a_remote_that_says_nothing() -> AsyncIterator[str]:
    """Takes connections, and holds them until it is left."""
    held = []
    server = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1")
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/app.git"
    finally:
        server.close()
        for writer in held:
            writer.close()
            await writer.wait_closed()


def _shows(gateway: Gateway, phase: str) -> Check:
    async def check() -> bool:
        request = pb.GetWorkspaceRequest(name="workspaces/demo")
        got = await gateway.workspaces.GetWorkspace(request)
        return got.workspace.progress.phase == phase

    return check


def _is_ready(gateway: Gateway) -> Check:
    async def check() -> bool:
        request = pb.GetWorkspaceRequest(name="workspaces/demo")
        return (await gateway.workspaces.GetWorkspace(request)).workspace.state == READY

    return check


def _called(stage: Stage, rpc: str, times: int) -> Check:
    async def check() -> bool:
        return stage.registry.calls.count(rpc) >= times

    return check
