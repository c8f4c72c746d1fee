"""Environments whose sandbox ends, and may not be started until they are reopened."""

from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from agent.client import Scope
from cove.errors.v1.errors_pb2 import ErrorReason
from cove.provider.v1 import provider_pb2 as pb
from servicekit.status import reason
from tests.agent.node import Box, close, command, new_uid, until
from tests.provider.conftest import Suite


async def stop(
    suite: Suite, handle: bytes, revision: int, *, force: bool = False, quiet: float = 0
) -> pb.StopEnvironmentResponse:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=quiet))
    request = pb.StopEnvironmentRequest(
        handle=handle, revision=revision, force=force, quiet=duration
    )
    return await suite.stub.StopEnvironment(request)


async def reopen(suite: Suite, handle: bytes, revision: int) -> bool:
    request = pb.ReopenEnvironmentRequest(handle=handle, revision=revision)
    return (await suite.stub.ReopenEnvironment(request)).superseded


async def activate(suite: Suite, handle: bytes) -> bool:
    request = pb.ActivateEnvironmentRequest(handle=handle)
    return (await suite.stub.ActivateEnvironment(request)).started


async def state(suite: Suite, handle: bytes) -> pb.Observation.State.ValueType:
    request = pb.InspectEnvironmentRequest(handle=handle)
    return (await suite.stub.InspectEnvironment(request)).observation.state


async def refused(suite: Suite, handle: bytes) -> ErrorReason.ValueType:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await activate(suite, handle)
    return reason(caught.value)


async def test_a_stopped_one_is_started_only_when_it_was_reopened(suite: Suite) -> None:
    uid = new_uid()
    handle = await suite.provisioned(uid)
    assert await activate(suite, handle)
    home = suite.state / "provider" / "environments" / uid / "home"
    (home / "kept").touch()
    assert (await stop(suite, handle, 5, force=True)).stopped
    assert await state(suite, handle) == pb.Observation.STATE_DORMANT
    assert await refused(suite, handle) == ErrorReason.ERROR_REASON_ENVIRONMENT_STOPPED
    assert (await stop(suite, handle, 5)).stopped
    assert (await stop(suite, handle, 4)).superseded
    assert await reopen(suite, handle, 4)
    assert await refused(suite, handle) == ErrorReason.ERROR_REASON_ENVIRONMENT_STOPPED
    assert not await reopen(suite, handle, 6)
    assert not await reopen(suite, handle, 6)
    assert await activate(suite, handle)
    for late in (5, 6):  # Whoever reopened it did so after those.
        answer = await stop(suite, handle, late, force=True)
        assert answer.superseded
        assert not answer.stopped
    assert await state(suite, handle) == pb.Observation.STATE_ACTIVE
    assert (home / "kept").exists()
    await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))


async def test_one_in_which_something_runs_is_stopped_by_force_only(suite: Suite) -> None:
    uid = new_uid()
    handle = await suite.provisioned(uid)
    await activate(suite, handle)
    tree = suite.state / "git" / "worktrees" / uid / "tree"
    box = Box(suite.node, uid, tree, suite.node.runtime / "a" / uid)
    sinks = box.sinks("busy")
    async with box.agent() as agent:
        await agent.start("busy", command("sh", "-c", "touch begun; sleep 600"), sinks)
        await until((tree / "begun").exists)
    answer = await stop(suite, handle, 1)
    assert not answer.stopped
    assert not answer.quiet.ToTimedelta()
    assert not await activate(suite, handle)
    assert (await stop(suite, handle, 1, force=True)).stopped
    close(sinks)
    assert await state(suite, handle) == pb.Observation.STATE_DORMANT
    await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))


async def test_it_is_stopped_only_if_nothing_has_run_for_long_enough(suite: Suite) -> None:
    uid = new_uid()
    handle = await suite.provisioned(uid)
    await activate(suite, handle)
    tree = suite.state / "git" / "worktrees" / uid / "tree"
    box = Box(suite.node, uid, tree, suite.node.runtime / "a" / uid)
    sinks = box.sinks("busy")
    async with box.agent() as agent:
        await agent.start("busy", command("sh", "-c", "touch begun; sleep 600"), sinks)
        await until((tree / "begun").exists)
        await agent.signal("busy", 9, Scope.TREE)
    close(sinks)
    answer = await stop(suite, handle, 1, quiet=600)
    assert not answer.stopped
    assert answer.quiet.ToTimedelta() < timedelta(seconds=600)

    for _ in range(1000):
        if (await stop(suite, handle, 1, quiet=0.1)).stopped:
            break
    assert await state(suite, handle) == pb.Observation.STATE_DORMANT
    await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))


async def test_a_dormant_one_is_stopped_too_and_one_that_is_gone_is_not(suite: Suite) -> None:
    uid = new_uid()
    handle = await suite.provisioned(uid)
    assert (await stop(suite, handle, 1, quiet=600)).stopped
    assert await refused(suite, handle) == ErrorReason.ERROR_REASON_ENVIRONMENT_STOPPED
    await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))
    for call in (stop(suite, handle, 2), reopen(suite, handle, 2)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert reason(caught.value) == ErrorReason.ERROR_REASON_NOT_PROVISIONED
