"""Environments that are held still for a while."""

import asyncio
import signal
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from agent.client import Scope
from cove.errors.v1.errors_pb2 import ErrorReason
from cove.provider.v1 import provider_pb2 as pb
from servicekit.status import reason
from tests.agent.node import Box, close, command, new_uid, until
from tests.provider.conftest import Suite

COUNT = "n=0; while true; do n=$((n+1)); echo $n > /workspace/n; done"


async def suspend(suite: Suite, handle: bytes, seconds: float, *, end_idle: bool = False) -> bool:
    duration = Duration(nanos=int(seconds * 1e9) % 10**9, seconds=int(seconds))
    request = pb.SuspendEnvironmentRequest(handle=handle, duration=duration, end_idle=end_idle)
    return (await suite.stub.SuspendEnvironment(request)).active


async def resume(suite: Suite, handle: bytes) -> bool:
    request = pb.ResumeEnvironmentRequest(handle=handle)
    return (await suite.stub.ResumeEnvironment(request)).resumed


async def counting(suite: Suite) -> tuple[str, bytes, Path]:
    """An environment in which something is written all the time, and where."""
    uid = new_uid()
    handle = await suite.provisioned(uid)
    await suite.stub.ActivateEnvironment(pb.ActivateEnvironmentRequest(handle=handle))
    tree = suite.state / "git" / "worktrees" / uid / "tree"
    box = Box(suite.node, uid, tree, suite.node.runtime / "a" / uid)
    sinks = box.sinks("count")
    async with box.agent() as agent:
        await agent.start("count", command("sh", "-c", COUNT), sinks)
    close(sinks)
    await until((tree / "n").exists)
    return uid, handle, tree / "n"


async def moves(file: Path) -> None:
    before = file.read_text()
    await until(lambda: file.read_text() not in ("", before))


async def test_it_holds_still_until_it_is_resumed(suite: Suite) -> None:
    uid, handle, file = await counting(suite)
    assert (await suite.stub.GetCapabilities(pb.GetCapabilitiesRequest())).capabilities.freeze
    assert await suspend(suite, handle, 60)
    before = file.read_text()
    listed = await suite.stub.ListProvisioned(pb.ListProvisionedRequest())
    assert uid in [each.uid for each in listed.observations]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(moves(file), 0.3)
    assert file.read_text() == before
    assert await resume(suite, handle)
    await moves(file)
    assert not await resume(suite, handle)
    assert await suspend(suite, handle, 0.2)
    await moves(file)
    await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))


async def test_a_suspended_one_can_be_released(suite: Suite) -> None:
    uid, handle, _ = await counting(suite)
    assert await suspend(suite, handle, 300)
    assert (await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))).existed
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await suspend(suite, handle, 1)
    assert reason(caught.value) == ErrorReason.ERROR_REASON_NOT_PROVISIONED


async def test_one_in_which_nothing_runs_is_ended_where_that_is_wanted(suite: Suite) -> None:
    uid, handle, file = await counting(suite)
    assert await suspend(suite, handle, 60, end_idle=True)
    assert await resume(suite, handle)
    box = Box(suite.node, uid, file.parent, suite.node.runtime / "a" / uid)
    async with box.agent() as agent:
        await agent.signal("count", signal.SIGKILL, Scope.TREE)
    assert not await suspend(suite, handle, 60, end_idle=True)
    inspect = pb.InspectEnvironmentRequest(handle=handle)
    found = (await suite.stub.InspectEnvironment(inspect)).observation
    assert found.state == pb.Observation.STATE_DORMANT
    activate = pb.ActivateEnvironmentRequest(handle=handle)
    assert (await suite.stub.ActivateEnvironment(activate)).started
    assert await suspend(suite, handle, 60)
    await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))


async def test_a_dormant_one_holds_still_anyway(suite: Suite) -> None:
    uid = new_uid()
    handle = await suite.provisioned(uid)
    assert not await suspend(suite, handle, 60)
    assert not await resume(suite, handle)
    await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))


@pytest.mark.parametrize("seconds", [0, 301])
async def test_a_duration_is_bounded(suite: Suite, seconds: int) -> None:
    uid = new_uid()
    handle = await suite.provisioned(uid)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await suspend(suite, handle, seconds)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await suspend(suite, b"nonsense", 1)
    assert reason(caught.value) == ErrorReason.ERROR_REASON_HANDLE_INVALID
    await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))
