"""What a setup makes of an image: once, kept by content, and told where it fails."""

import asyncio
import os
from datetime import timedelta

import grpc
import pytest

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.provider.v1 import provider_pb2 as pb
from servicekit.status import reason
from tests.agent.node import until
from tests.docker.images import BARE
from tests.docker.stage import Docker, Stage, new_uid, place, serving
from tests.executor.answers import failing

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

RANDOM = "head -c 8 /dev/urandom | od -An -tx1 > /etc/made"
"""Another each time that it is run."""
CAPABILITIES = (0, 1, 3, 4, 6, 7, 31)
"""To own, read and mark files, and to become another user."""


def images(docker: Docker) -> set[str]:
    return set(docker.run("images", "-q", "--no-trunc", "cove-setup").split())


def containers(docker: Docker) -> str:
    return docker.run("ps", "-a", "--format", "{{.Names}}", "--filter", "name=cove-setup")


async def test_it_is_run_once_for_all_who_name_the_same(stage: Stage) -> None:
    setup = [RANDOM, "id -u > /etc/who; pwd >> /etc/who"]
    boxes = await asyncio.gather(*(stage.provision(setup=setup) for _ in range(3)))
    other = await stage.provision(setup=[*setup, "true"])
    made = []
    for each in (*boxes, other):
        await stage.activate(each)
        made.append(await stage.said(each, "cat /etc/made"))
    assert len({*made[:3]}) == 1
    assert made[3] != made[0]
    assert await stage.said(boxes[0], "cat /etc/who; id -u") == "0\n/\n60900\n"
    assert stage.docker.inspect(boxes[0].uid)["Image"] in images(stage.docker)
    for each in (*boxes, other):
        await stage.release(each)


async def test_what_came_of_a_setup_is_no_image_for_others(stage: Stage) -> None:
    """Its name can be worked out by who knows the setup, and found by a part of its digest."""
    box = await stage.active(setup=["echo secret > /etc/fetched"])
    identity = stage.docker.inspect(box.uid)["Image"]
    lines = stage.docker.run("images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}")
    name = next(line.split()[1] for line in lines.splitlines() if line.startswith(identity))
    assert name.startswith("cove-setup:")
    for each in (name, identity, identity.removeprefix("sha256:")[:12]):
        async with failing() as told:
            await stage.provision(image=each)
        assert told.reason == "IMAGE_UNAVAILABLE"
    await stage.release(box)


async def test_it_is_run_on_the_image_and_with_nothing_that_it_does_not_need(stage: Stage) -> None:
    look = "grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; grep -c : /proc/net/dev"
    box = await stage.active(setup=[f"({look}; ls -A /sys/class/net) > /etc/seen"])
    bounding, privileges, filtered, *nets = (await stage.said(box, "cat /etc/seen")).split("\n")
    assert int(bounding.split()[1], 16) == sum(1 << each for each in CAPABILITIES)
    assert (privileges.split()[1], filtered.split()[1]) == ("1", "2")
    assert nets == ["1", "lo", ""]
    await stage.release(box)


@pytest.mark.parametrize(
    ("setup", "cause"),
    [
        (["echo fine", "echo about to fail; echo on purpose >&2; exit 3"], "on purpose"),
        (["kill -9 $$"], "command 1 of the setup ended with 137"),
        (["(sleep 1000 &) ; exit 4"], "command 1 of the setup ended with 4"),
    ],
)
async def test_one_that_fails_is_told_with_what_it_wrote(
    stage: Stage, setup: list[str], cause: str
) -> None:
    before, uid = images(stage.docker), new_uid()
    async with failing() as told:
        await stage.provision(uid=uid, setup=setup)
    assert told.reason == "BUILD_FAILED"
    assert cause in told.metadata["cause"]
    assert "setup" in told.remedy
    assert not (stage.state / "provider/environments" / uid).exists()
    assert images(stage.docker) == before
    assert containers(stage.docker) == ""


async def test_it_is_held_to_the_limits_of_who_asks(stage: Stage) -> None:
    uid, limits = new_uid(), pb.Limits(memory_bytes=32 << 20)
    hungry = "head -c 100000000 /dev/zero | tail | wc -c; exit ${?}"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stage.provision(uid=uid, setup=[f"set -o pipefail; {hungry}"], limits=limits)
    assert reason(refused.value) == ErrorReason.ERROR_REASON_BUILD_FAILED


async def test_who_leaves_ends_it_and_the_next_runs_it(stage: Stage) -> None:
    setup = ["sleep 1000"]
    asking = asyncio.create_task(stage.provision(setup=setup))
    await until(lambda: containers(stage.docker) != "")
    asking.cancel()
    await until(lambda: containers(stage.docker) == "")


async def test_what_it_made_is_made_again_when_the_engine_has_lost_it(stage: Stage) -> None:
    before = images(stage.docker)
    box = await stage.provision(setup=[RANDOM, "true"])
    (identity,) = images(stage.docker) - before
    stage.docker.run("rmi", "-f", identity)
    assert await stage.activate(box)
    assert len(await stage.said(box, "cat /etc/made")) > 8
    assert identity not in images(stage.docker)
    await stage.release(box)


async def test_one_that_nobody_uses_is_removed_by_its_age(docker: Docker) -> None:
    with place(docker) as there:
        async with serving(there, docker_setup_age=timedelta(days=1)) as stage:
            before = images(docker)
            used, unused = [await stage.provision(setup=[RANDOM, each]) for each in ("a=", "b=")]
            await stage.release(unused)
            kept = images(docker) - before
            assert len(kept) == 2
            for each in (stage.state / "provider/docker/setups").iterdir():
                os.utime(each, (0, 0))
        async with serving(there, docker_setup_age=timedelta(days=1)) as stage:
            await until(lambda: len(images(docker) & kept) == 1)
            assert await stage.activate(used)
            assert stage.docker.inspect(used.uid)["Image"] in images(docker) & kept
            await stage.release(used)


async def test_what_a_provider_did_not_live_to_end_is_removed(docker: Docker) -> None:
    with place(docker) as there:
        async with serving(there) as stage:
            identity = stage.identity
        labels = {"setup": "a" * 64, "state": identity, "schema": "1"}
        words = [word for key in labels for word in ("--label", f"dev.cove.{key}={labels[key]}")]
        name = ("--name", "cove-setup-left")
        docker.run("run", "-d", *name, *words, "--network=none", BARE, "sleep", "100000")
        async with serving(there):
            await until(lambda: containers(docker) == "")
