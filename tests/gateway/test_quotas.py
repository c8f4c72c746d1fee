"""What a tenant may have is decided before anything is made."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.registry.v1.access_pb2 import Quota, QuotaLimits
from services.provider.drivers import stopping, tenants
from tests.gateway.conftest import SESSION
from tests.gateway.stage import Gateway, Stage, eventually
from tests.servicekit.failing import Failure, failure

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest_asyncio.fixture(loop_scope=SESSION)
async def limited(gateway: Gateway) -> AsyncIterator[Gateway]:
    """A gateway whose tenant has no limits when the test is over."""
    yield gateway
    await limit(gateway, workspaces=0, active_environments=0, executions=0, disk_bytes=0)


async def limit(gateway: Gateway, **limits: int) -> Quota:
    request = pb.UpdateQuotaRequest(
        quota=Quota(limits=QuotaLimits(**limits)),
        update_mask=FieldMask(paths=[f"limits.{name}" for name in limits]),
    )
    return (await gateway.access.UpdateQuota(request)).quota


async def use(gateway: Gateway) -> Any:
    return (await gateway.access.GetQuota(pb.GetQuotaRequest())).quota.use


def start(id_: str = "", script: str = "sleep 60", workspace: str = "demo") -> Any:
    spec = executor_pb2.ExecutionSpec(script=script)
    return pb.StartExecutionRequest(
        parent=f"workspaces/{workspace}",
        execution_id=id_,
        execution=executor_pb2.Execution(spec=spec),
    )


def run(script: str, workspace: str = "demo", **fields: Any) -> pb.ExecuteRequest:
    spec = executor_pb2.ExecutionSpec(script=script)
    return pb.ExecuteRequest(name=f"workspaces/{workspace}", spec=spec, **fields)


async def end(gateway: Gateway, id_: str, workspace: str = "demo") -> None:
    name = f"workspaces/{workspace}/executions/{id_}"
    request = pb.DeleteExecutionRequest(name=name, force=True)
    await gateway.executions.DeleteExecution(request)


def exceeded(failed: Failure, quota: str) -> None:
    assert (failed.code, failed.reason) == (EXHAUSTED, "QUOTA_EXCEEDED")
    assert failed.info.metadata["quota"] == quota
    violation = failed.detail(error_details_pb2.QuotaFailure).violations[0]
    assert (violation.subject, violation.quota_metric) == ("tenants/default", quota)
    assert failed.detail(error_details_pb2.RetryInfo).retry_delay.seconds > 0
    assert failed.detail(error_details_pb2.LocalizedMessage)


async def test_two_gateways_never_make_more_workspaces_than_allowed(
    stage: Stage, limited: Gateway
) -> None:
    await limit(limited, workspaces=3)
    async with stage.gateway("second") as second:
        calls = [
            (limited, second)[number % 2].workspaces.CreateWorkspace(stage.create(f"w{number}"))
            for number in range(20)
        ]
        ends = await asyncio.gather(*calls, return_exceptions=True)
    failed = [Failure(each) for each in ends if isinstance(each, grpc.aio.AioRpcError)]
    assert len(failed) == 17
    for each in failed:
        exceeded(each, "workspaces")
    assert len([each for each in await stage.left() if each.startswith("worktree")]) == 3
    assert (await use(limited)).workspaces == 3


async def test_a_create_that_fails_gives_its_place_back(stage: Stage, limited: Gateway) -> None:
    await limit(limited, workspaces=1)
    for _ in range(2):
        bad = stage.create("bad", spec={"revision": "no-such"})
        failed = await failure(limited.workspaces.CreateWorkspace(bad))
        assert failed.reason == "REVISION_NOT_FOUND"
    await limited.workspaces.CreateWorkspace(stage.create())
    exceeded(await failure(limited.workspaces.CreateWorkspace(stage.create("more"))), "workspaces")
    fork = pb.ForkWorkspaceRequest(name="workspaces/demo", workspace_id="fork")
    exceeded(await failure(limited.workspaces.ForkWorkspace(fork)), "workspaces")


async def test_a_deleted_workspace_needs_a_place_to_come_back(
    stage: Stage, limited: Gateway
) -> None:
    await limit(limited, workspaces=1)
    await limited.workspaces.CreateWorkspace(stage.create())
    await limited.executions.Execute(run("echo precious > work.txt"))
    await limited.workspaces.DeleteWorkspace(pb.DeleteWorkspaceRequest(name="workspaces/demo"))
    await limited.workspaces.CreateWorkspace(stage.create("other"))
    undelete = pb.UndeleteWorkspaceRequest(name="workspaces/demo")
    failed = await failure(limited.workspaces.UndeleteWorkspace(undelete))
    exceeded(failed, "workspaces")
    other = pb.DeleteWorkspaceRequest(name="workspaces/other", force=True)
    await limited.workspaces.DeleteWorkspace(other)
    await limited.workspaces.UndeleteWorkspace(undelete)
    assert (await use(limited)).workspaces == 1


async def test_of_commands_started_at_once_as_many_run_as_may(
    stage: Stage, limited: Gateway
) -> None:
    await limited.workspaces.CreateWorkspace(stage.create())
    await limit(limited, executions=2)
    ends = await asyncio.gather(
        *(limited.executions.StartExecution(start(f"x{number}")) for number in range(10)),
        return_exceptions=True,
    )
    failed = [Failure(each) for each in ends if isinstance(each, grpc.aio.AioRpcError)]
    assert len(failed) == 8
    for each in failed:
        exceeded(each, "executions")
    assert (await use(limited)).executions == 2
    running = next(n for n, each in enumerate(ends) if not isinstance(each, BaseException))
    again = await limited.executions.StartExecution(start(f"x{running}"))  # It is there already.
    assert again.execution.state == executor_pb2.Execution.STATE_RUNNING
    exceeded(await failure(limited.executions.Execute(run("true"))), "executions")
    await end(limited, f"x{running}")
    await limited.executions.StartExecution(start("last"))


async def test_a_request_that_comes_again_does_not_mind_another_limit(
    stage: Stage, limited: Gateway
) -> None:
    await limited.workspaces.CreateWorkspace(stage.create())
    request = run("date +%N", request_id=str(uuid.uuid4()))
    first = await limited.executions.Execute(request)
    await limit(limited, executions=1, active_environments=1, disk_bytes=1 << 40)
    assert (await limited.executions.Execute(request)).stdout == first.stdout


async def test_an_idle_sandbox_makes_room_and_a_busy_one_does_not(
    stage: Stage, limited: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "_SETTLED", 3600.0)
    for name in ("demo", "other"):
        await limited.workspaces.CreateWorkspace(stage.create(name))
    await limit(limited, active_environments=1)
    await limited.executions.Execute(run("true"))
    failed = await failure(limited.executions.Execute(run("true", "other")))
    exceeded(failed, "active_environments")  # One is not ended so early.
    monkeypatch.setattr(stopping, "_SETTLED", 0.0)
    await limited.executions.Execute(run("true", "other"))
    assert await stage.active("other")
    assert not await stage.active("demo")
    await limited.executions.StartExecution(start("busy", workspace="other"))
    failed = await failure(limited.executions.Execute(run("true")))
    exceeded(failed, "active_environments")
    assert (await use(limited)).active_environments == 1
    await limited.executions.Execute(run("true", "other"))  # It runs already.
    await end(limited, "busy", "other")
    await limited.executions.Execute(run("true"))


async def test_of_sandboxes_started_at_once_as_many_run_as_may(
    stage: Stage, limited: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "_SETTLED", 3600.0)  # However long all of them take to start.
    names = [f"w{number}" for number in range(6)]
    await asyncio.gather(
        *(limited.workspaces.CreateWorkspace(stage.create(name)) for name in names)
    )
    await limit(limited, active_environments=2)
    ends = await asyncio.gather(
        *(limited.executions.Execute(run("true", name)) for name in names), return_exceptions=True
    )
    assert sum(isinstance(each, pb.ExecuteResponse) for each in ends) == 2
    assert sum([await stage.active(name) for name in names]) == 2


async def test_who_has_no_bytes_left_starts_nothing_and_can_make_room(
    stage: Stage, limited: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_FRESH", "_SOON", "_REST"):  # Measured each time.
        monkeypatch.setattr(tenants, name, 0.0)
    await limited.workspaces.CreateWorkspace(stage.create())
    await limited.executions.Execute(run("head -c 4000000 /dev/urandom > big"))
    await limit(limited, disk_bytes=3_000_000)

    async def measured() -> bool:
        return bool((await use(limited)).disk_bytes >= 4_000_000)

    await eventually(measured)
    before = await stage.left()
    for call in (
        limited.workspaces.CreateWorkspace(stage.create("more")),
        limited.workspaces.ForkWorkspace(pb.ForkWorkspaceRequest(name="workspaces/demo")),
        limited.executions.Execute(run("true")),
        limited.executions.StartExecution(start()),
    ):
        exceeded(await failure(call), "disk_bytes")
    assert await stage.left() == before
    await limited.files.RemoveFile(pb.RemoveFileRequest(name="workspaces/demo", path="big"))
    await limited.executions.Execute(run("true"))


async def test_limits_are_those_that_are_named(limited: Gateway) -> None:
    await limit(limited, executions=5)
    quota = Quota(limits=QuotaLimits(disk_bytes=-1))
    set_ = await limited.access.UpdateQuota(pb.UpdateQuotaRequest(quota=quota))
    assert set_.quota.limits == QuotaLimits(executions=5, disk_bytes=-1)
    assert set_.quota.effective_limits == QuotaLimits(executions=5)
    bad = pb.UpdateQuotaRequest(quota=quota, update_mask=FieldMask(paths=["use"]))
    assert (await failure(limited.access.UpdateQuota(bad))).reason == "FIELD_IMMUTABLE"
    nothing = pb.UpdateQuotaRequest(quota=Quota())
    assert (await limited.access.UpdateQuota(nothing)).quota.etag == set_.quota.etag


@pytest.mark.long
async def test_a_tool_that_is_away_leaves_its_number_out(stage: Stage, limited: Gateway) -> None:
    stage.executor.fail("GetTenantUsage")
    found = await use(limited)
    assert not found.HasField("executions")
    assert found.HasField("active_environments")
    assert found.HasField("disk_measure_time")
