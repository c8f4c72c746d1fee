"""Environments of the driver docker, from provision to release, on a real engine."""

import asyncio
import signal
import subprocess
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from agent.handle import Handle
from cove.errors.v1.errors_pb2 import ErrorReason
from cove.provider.v1 import provider_pb2 as pb
from servicekit.status import reason
from tests.agent.node import until
from tests.docker.images import BARE, bring, make_bare
from tests.docker.stage import NODE, Docker, Stage, new_uid, place, serving

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

ACTIVE, DORMANT, BROKEN = (
    getattr(pb.Observation, f"STATE_{name}") for name in ("ACTIVE", "DORMANT", "BROKEN")
)


async def test_what_it_can(stage: Stage) -> None:
    found = (await stage.stub.GetCapabilities(pb.GetCapabilitiesRequest())).capabilities
    assert found.driver == "docker"
    assert found.node == NODE
    assert not found.remedy
    assert {"image", "freeze", "memory_limit", "cpu_limit", "outlives_services"} <= {
        *found.capabilities
    }
    assert "setup" in found.capabilities


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"image": ""}, ErrorReason.ERROR_REASON_INVALID_FIELD),
        ({"image": "../containers/x"}, ErrorReason.ERROR_REASON_INVALID_FIELD),
        ({"image": "a?b=c"}, ErrorReason.ERROR_REASON_INVALID_FIELD),
        ({"image": "cove-test/absent:1"}, ErrorReason.ERROR_REASON_IMAGE_UNAVAILABLE),
        ({"required_capabilities": ["atomic"]}, ErrorReason.ERROR_REASON_CAPABILITY_MISSING),
    ],
)
async def test_what_it_cannot_is_refused_and_nothing_is_made(
    stage: Stage, spec: dict[str, Any], expected: int
) -> None:
    uid = new_uid()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stage.provision(uid=uid, **spec)
    assert reason(refused.value) == expected
    assert not (stage.state / "provider/environments" / uid).exists()
    assert f"cove-{uid}" not in stage.docker.names()


async def test_dormant_is_no_container(stage: Stage) -> None:
    box = await stage.provision()
    assert (await stage.inspect(box)).state == DORMANT
    assert f"cove-{box.uid}" not in stage.docker.names()
    assert await stage.activate(box)
    assert not await stage.activate(box)
    assert (await stage.inspect(box)).state == ACTIVE
    assert await stage.said(box, "echo hello") == "hello\n"
    assert await stage.release(box)
    assert not await stage.release(box)
    assert f"cove-{box.uid}" not in stage.docker.names()
    assert not (stage.runtime / "a" / box.uid).exists()


async def test_a_container_has_nothing_that_it_does_not_need(stage: Stage) -> None:
    limits = pb.Limits(memory_bytes=256 << 20, processes=50, milli_cpus=500)
    box = await stage.active(limits=limits)
    found = stage.docker.inspect(box.uid)
    host = found["HostConfig"]
    assert (host["NetworkMode"], host["CapDrop"], host["ReadonlyRootfs"]) == ("none", ["ALL"], True)
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert (host["Privileged"], host["CapAdd"], host["Devices"] or []) == (False, None, [])
    assert (host["Memory"], host["CpuQuota"], host["CpuPeriod"]) == (256 << 20, 50_000, 100_000)
    assert 50 < host["PidsLimit"] < 60
    assert found["Config"]["User"] == "60900:60900"
    assert not [each for each in found["Mounts"] if "docker" in each["Source"] and each["RW"]]
    labels = {"uid": box.uid, "state": stage.identity, "schema": "1", "tenant": "", "node": NODE}
    assert found["Config"]["Labels"] == {f"dev.cove.{key}": labels[key] for key in labels}
    status = await stage.said(
        box, "grep -E '^(CapBnd|CapEff|NoNewPrivs|Seccomp):' /proc/self/status"
    )
    assert [line.split()[1].strip("0") for line in status.splitlines()] == ["", "", "1", "2"]
    assert await stage.said(box, "id") == "uid=60900(cove) gid=60900(cove) groups=60900(cove)\n"
    await stage.release(box)


async def test_any_part_of_a_processor_can_be_a_limit(stage: Stage) -> None:
    for millis in (1, 1_000_000):
        box = await stage.active(limits=pb.Limits(milli_cpus=millis))
        assert (await stage.inspect(box)).state == ACTIVE
        await stage.release(box)


async def test_an_image_is_what_its_name_meant_at_first(stage: Stage) -> None:
    name = "cove-test/moving"
    stage.docker.run("tag", BARE, name)
    box = await stage.provision(image=name)
    roots = stage.folder / "roots"
    bring(stage.docker.address, make_bare(roots / "other", "other"), name)
    again = await stage.provision(image=name, uid=box.uid)
    assert again.handle == box.handle
    await stage.activate(box)
    assert "other" not in await stage.said(box, "ls /")
    other = await stage.active(image=name)
    assert "other" in await stage.said(other, "ls /")
    for each in (box, other):
        await stage.release(each)


async def test_an_image_that_is_gone_is_named(stage: Stage) -> None:
    name, roots = "cove-test/going", stage.folder / "roots"
    root = make_bare(roots / "going", "going")
    bring(stage.docker.address, root, name)
    box = await stage.provision(image=name)
    saved = subprocess.run(
        ["docker", "--host", stage.docker.address, "save", name], check=True, capture_output=True
    ).stdout
    stage.docker.run("rmi", name)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stage.activate(box)
    assert reason(refused.value) == ErrorReason.ERROR_REASON_IMAGE_UNAVAILABLE
    subprocess.run(
        ["docker", "--host", stage.docker.address, "load"],
        check=True,
        input=saved,
        capture_output=True,
    )
    assert await stage.activate(box)
    await stage.release(box)


async def test_suspended_it_holds_still_and_goes_on_by_itself(stage: Stage) -> None:
    box = await stage.active()
    await stage.caller.start(box, "counts", "while :; do echo; sleep 0.01; done")
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=0.3))
    request = pb.SuspendEnvironmentRequest(handle=box.handle, duration=duration)
    assert (await stage.stub.SuspendEnvironment(request)).active
    assert stage.docker.inspect(box.uid)["State"]["Paused"]
    assert not await stage.activate(box)
    before = (await stage.caller.get(box, "counts")).output_bytes
    await until(lambda: not stage.docker.inspect(box.uid)["State"]["Paused"])
    async with asyncio.timeout(15):
        async for _ in stage.caller.read(box, "counts", before):
            break
    assert (await stage.stub.SuspendEnvironment(request)).active
    assert (
        await stage.stub.ResumeEnvironment(pb.ResumeEnvironmentRequest(handle=box.handle))
    ).resumed
    assert not stage.docker.inspect(box.uid)["State"]["Paused"]
    await stage.stub.SuspendEnvironment(request)
    await stage.release(box)


async def test_stopped_it_does_not_start_until_it_is_reopened(stage: Stage) -> None:
    box = await stage.active()
    await stage.caller.start(box, "runs", "sleep 100")
    request = pb.StopEnvironmentRequest(handle=box.handle, revision=1)
    assert not (await stage.stub.StopEnvironment(request)).stopped
    request.force = True
    assert (await stage.stub.StopEnvironment(request)).stopped
    assert (await stage.caller.wait(box, "runs")).exit.cancelled.by == "suspend"
    assert f"cove-{box.uid}" not in stage.docker.names()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stage.activate(box)
    assert reason(refused.value) == ErrorReason.ERROR_REASON_ENVIRONMENT_STOPPED
    await stage.stub.ReopenEnvironment(pb.ReopenEnvironmentRequest(handle=box.handle, revision=2))
    assert await stage.activate(box)
    await stage.release(box)


async def test_idle_it_ends_and_its_files_are_there_when_it_is_activated_again(
    docker: Docker,
) -> None:
    idle = timedelta(seconds=0.3)
    with place(docker) as there:
        async with serving(there, idle_timeout=idle) as quick:
            box = await quick.active(quick.layers(uid := new_uid()), uid=uid)
            await quick.said(box, "echo kept > file; rm d/f; echo home > ~/h; echo tmp > /tmp/t")
            await until(lambda: not quick.docker.inspect(uid)["State"]["Running"])
            assert (await quick.inspect(box)).state == DORMANT
            assert (quick.state / "git/worktrees" / uid / "upper/file").read_text() == "kept\n"
            assert await quick.activate(box)
            assert await quick.said(box, "cat file ~/h /tmp/t; ls d") == "kept\nhome\ntmp\n"
            await quick.release(box)


@pytest.mark.parametrize(
    "handle",
    [
        b"nonsense",
        Handle(driver="docker", node="other", uid="a" * 16).encode(),
        Handle(driver="local", node=NODE, uid="a" * 16).encode(),
        b"MDpkb2NrZXI6bjE6YWFhYWFhYWFhYWFhYWFhYTox",  # Of version 0.
    ],
    ids=["nonsense", "of another node", "of another driver", "of an old schema"],
)
async def test_a_forged_handle_opens_nothing(stage: Stage, handle: bytes) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stage.stub.ActivateEnvironment(pb.ActivateEnvironmentRequest(handle=handle))
    assert reason(refused.value) == ErrorReason.ERROR_REASON_HANDLE_INVALID


async def test_a_stale_handle_opens_nothing(stage: Stage) -> None:
    box = await stage.provision()
    await stage.release(box)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stage.activate(box)
    assert reason(refused.value) == ErrorReason.ERROR_REASON_NOT_PROVISIONED


@pytest.mark.parametrize("changed", [{"uid": "b" * 16}, {"state": "f" * 16}, {"schema": "0"}])
async def test_a_container_is_not_believed_by_its_name(
    stage: Stage, changed: dict[str, str]
) -> None:
    """Of another environment, another state directory, or another version: it is not opened, and
    not touched either."""
    box = await stage.provision()
    with stage.stranger(box.uid, **changed):
        for call in (stage.activate, stage.inspect):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(box)
            assert reason(refused.value) == ErrorReason.ERROR_REASON_HANDLE_INVALID
        assert stage.docker.inspect(box.uid)["State"]["Running"]
    await stage.release(box)


async def test_a_container_that_no_record_points_at_is_listed_and_released(stage: Stage) -> None:
    uid = new_uid()
    with stage.stranger(uid):
        listed = (await stage.stub.ListProvisioned(stage.everything())).observations
        assert [each.state for each in listed if each.uid == uid] == [BROKEN]
        assert (await stage.stub.ReleaseEnvironment(stage.releasing(uid))).existed
        assert f"cove-{uid}" not in stage.docker.names()


async def test_what_kills_an_environment_leaves_no_process(stage: Stage) -> None:
    box = await stage.active()
    many = "for i in 1 2 3 4 5 6 7 8; do (trap '' TERM; sleep 1000) & done; wait"
    await stage.caller.start(box, "bomb", many)
    await stage.caller.signal(box, "bomb", signal.SIGKILL, 3)
    assert "sleep" not in await stage.said(box, "ps")
    await stage.caller.start(box, "again", "sleep 1000")
    await stage.release(box)
    assert (await stage.caller.wait(box, "again")).exit.WhichOneof("reason") == "lost"
