"""Workspaces that expire, and that are suspended as they are idle."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.registry.v1 import registry_pb2
from tests.gateway.stage import Gateway, Stage, State, eventually
from tests.servicekit.failing import Failure, failure

DEMO = "workspaces/demo"
READY = pb.Workspace.STATE_READY
SUSPENDED = pb.Workspace.STATE_SUSPENDED
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SHORT: dict[str, Any] = {"activity_interval": timedelta(seconds=0.2)}
"""With that one may be idle after a second."""


async def test_one_that_expires_is_deleted_and_its_work_is_kept(
    stage: Stage, gateway: Gateway
) -> None:
    made = (await _create(stage, gateway, ttl=2 * HOUR)).workspace
    life = made.expire_time.ToDatetime() - made.create_time.ToDatetime()
    assert life == 2 * HOUR
    await _run(gateway, "echo precious > work.txt; sleep 600 &")
    stage.times.pass_(HOUR)
    await _rounds(stage)
    assert (await _get(gateway)).state == READY
    stage.times.pass_(HOUR)
    await eventually(_is(gateway, pb.Workspace.STATE_DELETED))
    found = await _get(gateway)
    assert found.cause == pb.Workspace.CAUSE_EXPIRED
    assert found.purge_time.ToDatetime() - found.delete_time.ToDatetime() > DAY - HOUR

    request = pb.UndeleteWorkspaceRequest(name=DEMO)
    restored = (await gateway.workspaces.UndeleteWorkspace(request)).workspace
    assert (restored.state, restored.cause) == (READY, pb.Workspace.CAUSE_UNSPECIFIED)
    await _rounds(stage)
    assert await _run(gateway, "cat work.txt") == "precious\n"
    stage.times.pass_(2 * HOUR)
    await eventually(_is(gateway, pb.Workspace.STATE_DELETED))
    stage.times.pass_(DAY + HOUR)
    await eventually(stage.empty)


@pytest.mark.long
async def test_watchers_are_told_why_it_goes(stage: Stage, gateway: Gateway) -> None:
    await _create(stage, gateway, ttl=HOUR)
    events = gateway.workspaces.WatchWorkspaces(pb.WatchWorkspacesRequest())
    stage.times.pass_(HOUR)
    causes = []
    async for event in events:
        if event.HasField("put"):
            causes.append((event.put.workspace.state, event.put.workspace.cause))
        if event.HasField("delete"):
            break
    assert causes[-1] == (pb.Workspace.STATE_DELETING, pb.Workspace.CAUSE_EXPIRED)
    await eventually(stage.empty)


@pytest.mark.long
async def test_a_life_can_be_prolonged_and_ended(stage: Stage, gateway: Gateway) -> None:
    await _create(stage, gateway, ttl=HOUR)
    longer = await _update(gateway, ttl=3 * HOUR)
    assert longer.expire_time.ToDatetime() - longer.create_time.ToDatetime() == 3 * HOUR
    stage.times.pass_(2 * HOUR)
    await _rounds(stage)
    failed = await failure(_updating(gateway, ttl=HOUR))
    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert _field(failed) == "workspace.spec.ttl"
    for_ever = await _update(gateway, ttl=None)
    assert not for_ever.HasField("expire_time")
    stage.times.pass_(10 * DAY)
    await _rounds(stage)
    assert (await _get(gateway)).state == READY
    await gateway.workspaces.SuspendWorkspace(pb.SuspendWorkspaceRequest(name=DEMO))
    await _update(gateway, ttl=11 * DAY)
    stage.times.pass_(DAY)
    await eventually(stage.empty)


@pytest.mark.long
async def test_two_gateways_expire_one_once(stage: Stage) -> None:
    # With a grace: else what is just going is taken for an orphan, and removed twice.
    later = {"orphan_grace": HOUR}
    async with stage.gateway("one", **later) as gateway, stage.gateway("two", **later):
        for number in range(3):
            await _create(stage, gateway, f"demo-{number}", ttl=HOUR)
        stage.reset_calls()
        stage.times.pass_(HOUR)
        await eventually(stage.empty)
    assert stage.provider.calls.count("ReleaseEnvironment") == 3
    assert stage.git.calls.count("RemoveWorktree") == 3


@pytest.mark.long
async def test_a_clock_that_is_set_forward_ends_nothing(stage: Stage, gateway: Gateway) -> None:
    await _create(stage, gateway, ttl=HOUR)
    await _create(stage, gateway, "gone")
    await _run(gateway, "echo precious > work.txt", name="workspaces/gone")
    await gateway.workspaces.DeleteWorkspace(pb.DeleteWorkspaceRequest(name="workspaces/gone"))
    stage.times.set(3 * DAY)
    await _rounds(stage)
    assert await _states(stage) == {"demo": State.STATE_READY, "gone": State.STATE_DELETED}
    # What is deleted now is kept for as long as was said, whichever time is the right one.
    await _run(gateway, "echo precious > work.txt")
    deleted = await gateway.workspaces.DeleteWorkspace(pb.DeleteWorkspaceRequest(name=DEMO))
    stage.times.pass_(2 * HOUR)  # It has lasted: that is what time it is.
    await eventually(_without(stage, "gone"))
    await _rounds(stage)
    assert await _states(stage) == {"demo": State.STATE_DELETED}
    # It was a mistake all the same.
    stage.times.set(-3 * DAY)
    await eventually(_redated(stage, gateway))
    assert (await _get(gateway)).purge_time.ToDatetime() < deleted.workspace.purge_time.ToDatetime()
    stage.times.pass_(DAY + HOUR)
    await eventually(stage.empty)


@pytest.mark.long
async def test_a_clock_that_was_ahead_makes_nothing_live_for_ever(
    stage: Stage, gateway: Gateway
) -> None:
    stage.times.set(3650 * DAY)
    await _create(stage, gateway, ttl=2 * HOUR)
    stage.times.set(-3650 * DAY)
    stage.times.pass_(HOUR)
    await _rounds(stage)
    assert (await _get(gateway)).state == READY
    stage.times.pass_(2 * HOUR)
    await eventually(stage.empty)


async def test_one_that_is_idle_is_suspended_and_the_next_use_resumes_it(stage: Stage) -> None:
    async with stage.gateway("one") as gateway, stage.gateway("two"):
        await _create(stage, gateway, idle_timeout=HOUR)
        await _run(gateway, "echo work > work.txt; echo home > ~/home.txt")
        await stage.end_sandbox("demo")
        await _rounds(stage)
        stage.reset_calls()
        stage.times.pass_(HOUR)
        await eventually(_is(gateway, SUSPENDED))
        assert stage.registry.calls.count("UpdateEnvironmentStatus") == 1
        found = await _get(gateway)
        assert found.cause == pb.Workspace.CAUSE_IDLE
        assert found.suspend_time.ToDatetime() - found.last_active_time.ToDatetime() >= HOUR
        calls = [_run(gateway, "cat work.txt ~/home.txt") for _ in range(8)]
        assert await asyncio.gather(*calls) == ["work\nhome\n"] * 8
        assert (await _get(gateway)).state == READY

        await stage.end_sandbox("demo")
        await _rounds(stage)
        stage.times.pass_(HOUR)
        await eventually(_is(gateway, SUSPENDED))
        # Asked for, it stays so.
        await gateway.workspaces.SuspendWorkspace(pb.SuspendWorkspaceRequest(name=DEMO))
        assert (await failure(_run(gateway, "true"))).reason == "WORKSPACE_SUSPENDED"
        assert (await _get(gateway)).cause == pb.Workspace.CAUSE_REQUESTED


@pytest.mark.long
async def test_one_whose_sandbox_is_there_is_suspended_when_nothing_has_run(stage: Stage) -> None:
    async with stage.gateway(**SHORT) as gateway:
        idle = timedelta(seconds=1)
        await _create(stage, gateway, idle_timeout=idle)
        await _run(gateway, "sleep 3 & echo on")
        began = (await _get(gateway)).last_active_time
        await eventually(_is(gateway, SUSPENDED))
        found = await _get(gateway)
        assert found.suspend_time.ToDatetime() - found.last_active_time.ToDatetime() >= idle
        assert found.last_active_time.ToDatetime() - began.ToDatetime() > 2 * idle
        assert not await stage.active("demo")


async def test_what_runs_keeps_it_from_being_idle(stage: Stage, gateway: Gateway) -> None:
    await _create(stage, gateway, idle_timeout=HOUR)
    await _run(gateway, "sleep 600 & echo $! > ~/pid")
    for _ in range(3):
        stage.times.pass_(HOUR)
        stage.reset_calls()
        await eventually(_asked(stage))
        await eventually(stage.settled)
        found = await _get(gateway)
        assert found.state == READY
        now = stage.times.wall()
        assert now - found.last_active_time.ToSeconds() < HOUR.total_seconds()
    # In dormant ones nothing runs; but it may have until a little before.
    await stage.end_sandbox("demo")
    await _rounds(stage)
    stage.times.pass_(HOUR)
    await eventually(_is(gateway, SUSPENDED))


@pytest.mark.long
async def test_a_call_that_lasts_keeps_it_from_being_idle(stage: Stage) -> None:
    async with stage.gateway("one", **SHORT) as gateway, stage.gateway("two", **SHORT):
        idle = timedelta(seconds=1)
        began = (await _create(stage, gateway, idle_timeout=idle)).workspace.create_time
        ending = asyncio.Event()

        async def upload() -> AsyncIterator[pb.WriteFileRequest]:
            header = pb.WriteFileHeader(name=DEMO, path="slow.txt")
            yield pb.WriteFileRequest(header=header)
            yield pb.WriteFileRequest(data=b"slow")
            await ending.wait()
            yield pb.WriteFileRequest(end=executor_pb2.WriteFileEnd(bytes=4))

        uploading = asyncio.ensure_future(gateway.files.WriteFile(upload()))

        async def long_after() -> bool:
            found = await _get(gateway)
            assert found.state == READY
            lasted: timedelta = found.last_active_time.ToDatetime() - began.ToDatetime()
            return lasted > 4 * idle

        await eventually(long_after)
        ending.set()
        await uploading
        await eventually(_is(gateway, SUSPENDED))
        assert await _run(gateway, "cat slow.txt") == "slow"


async def test_uses_are_noted_at_intervals_only(stage: Stage, gateway: Gateway) -> None:
    await _create(stage, gateway, idle_timeout=HOUR)
    stage.reset()
    for _ in range(20):
        await gateway.sources.GetWorktreeStatus(pb.GetWorktreeStatusRequest(name=DEMO))
    assert "UpdateEnvironment" not in stage.registry.calls
    stage.times.pass_(HOUR / 2)
    for _ in range(20):
        await gateway.sources.GetWorktreeStatus(pb.GetWorktreeStatusRequest(name=DEMO))
    assert stage.registry.calls.count("UpdateEnvironment") == 1
    found = await _get(gateway)
    assert stage.times.wall() - found.last_active_time.ToSeconds() < HOUR.total_seconds() / 4


async def test_who_looks_on_does_not_use_it(stage: Stage, gateway: Gateway) -> None:
    await _create(stage, gateway)
    stage.times.pass_(DAY)
    stage.reset_calls()
    usage = gateway.executions.WatchUsage(pb.WatchUsageRequest(name=DEMO))
    async for _ in usage:
        break
    usage.cancel()
    await _get(gateway)
    assert "UpdateEnvironment" not in stage.registry.calls


async def test_what_cannot_be_told_is_refused(stage: Stage, gateway: Gateway) -> None:
    answer = await gateway.workspaces.GetCapabilities(pb.GetCapabilitiesRequest())
    least = answer.life.min_idle_timeout.ToTimedelta()
    assert least == 2 * answer.life.activity_interval.ToTimedelta() == timedelta(minutes=1)
    assert answer.life.undelete_window.ToTimedelta() == DAY
    too_short = least - timedelta(seconds=1)
    failed = await failure(_create(stage, gateway, idle_timeout=too_short))
    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert _field(failed) == "workspace.spec.idle_timeout"
    assert await stage.empty()
    await _create(stage, gateway)
    failed = await failure(_updating(gateway, idle_timeout=too_short))
    assert failed.reason == "INVALID_FIELD"
    assert (await _update(gateway, idle_timeout=least)).spec.idle_timeout.ToTimedelta() == least


def _create(stage: Stage, gateway: Gateway, id_: str = "demo", **spec: timedelta) -> Any:
    asked = {name: _duration(value) for name, value in spec.items()}
    return gateway.workspaces.CreateWorkspace(stage.create(id_, spec=asked))


def _updating(gateway: Gateway, **spec: timedelta | None) -> Any:
    given: dict[str, Any] = {name: _duration(value) for name, value in spec.items() if value}
    workspace = pb.Workspace(name=DEMO, spec=registry_pb2.EnvironmentSpec(**given))
    mask = FieldMask(paths=[f"spec.{name}" for name in spec])
    request = pb.UpdateWorkspaceRequest(workspace=workspace, update_mask=mask)
    return gateway.workspaces.UpdateWorkspace(request)


async def _update(gateway: Gateway, **spec: timedelta | None) -> pb.Workspace:
    updated: pb.Workspace = (await _updating(gateway, **spec)).workspace
    return updated


async def _get(gateway: Gateway) -> pb.Workspace:
    return (await gateway.workspaces.GetWorkspace(pb.GetWorkspaceRequest(name=DEMO))).workspace


async def _run(gateway: Gateway, script: str, name: str = DEMO) -> str:
    spec = executor_pb2.ExecutionSpec(script=script)
    answer = await gateway.executions.Execute(pb.ExecuteRequest(name=name, spec=spec))
    return answer.stdout.text


async def _states(stage: Stage) -> dict[str, int]:
    return {each.name.removeprefix("environments/"): each.state for each in await stage.records()}


async def _rounds(stage: Stage, count: int = 3) -> None:
    """Until a gateway has looked so often from its beginning to its end."""
    seen = stage.registry.calls.count("ListEnvironments")
    await eventually(lambda: _counted(stage, seen + count))
    await eventually(stage.settled)


async def _counted(stage: Stage, least: int) -> bool:
    return stage.registry.calls.count("ListEnvironments") >= least


def _field(failed: Failure) -> str:
    bad = failed.detail(error_details_pb2.BadRequest)
    return str(bad.field_violations[0].field)


def _is(gateway: Gateway, state: pb.Workspace.State.ValueType) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return (await _get(gateway)).state == state

    return check


def _asked(stage: Stage) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return "StopEnvironment" in stage.provider.calls

    return check


def _without(stage: Stage, name: str) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return name not in await _states(stage)

    return check


def _redated(stage: Stage, gateway: Gateway) -> Callable[[], Awaitable[bool]]:
    """Whether it was deleted at a time that has been."""

    async def check() -> bool:
        return (await _get(gateway)).delete_time.ToSeconds() <= stage.times.wall()

    return check


def _duration(value: timedelta) -> Duration:
    made = Duration()
    made.FromTimedelta(value)
    return made
