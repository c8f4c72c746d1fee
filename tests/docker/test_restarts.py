"""Provider, and the engine itself, are killed: what was told stays, all is found again."""

import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.provider.v1 import provider_pb2 as pb
from servicekit.status import reason
from tests.agent.node import until
from tests.compose.daemon import daemon
from tests.compose.machine import Cannot
from tests.docker.engine import ALONE, bench, engine
from tests.docker.stage import Docker, Place, Stage, place, serving

pytestmark = pytest.mark.docker


@pytest.fixture
def where(docker: Docker) -> Iterator[Place]:
    with place(docker) as made:
        yield made


async def test_a_provider_finds_again_what_an_earlier_one_started(where: Place) -> None:
    async with serving(where) as first:
        running, dormant = await first.active(), await first.provision()
        await first.caller.start(running, "goes-on", "sleep 2; echo done")
    async with serving(where) as second:
        assert (await second.inspect(running)).state == pb.Observation.STATE_ACTIVE
        assert (await second.inspect(dormant)).state == pb.Observation.STATE_DORMANT
        assert not await second.activate(running)
        assert (await second.caller.wait(running, "goes-on")).exit.code == 0
        assert await second.caller.output(running, "goes-on") == b"done\n"
        await _release(second, running.uid, dormant.uid)


async def test_what_a_provider_held_still_goes_on_with_the_next(where: Place) -> None:
    duration = Duration()
    duration.FromTimedelta(timedelta(hours=1))
    async with serving(where) as first:
        box = await first.active()
        await first.stub.SuspendEnvironment(
            pb.SuspendEnvironmentRequest(handle=box.handle, duration=duration)
        )
    async with serving(where) as second:
        await until(lambda: not second.docker.inspect(box.uid)["State"]["Paused"])
        assert await second.said(box, "echo on") == "on\n"
        await _release(second, box.uid)


async def test_a_container_that_was_never_let_in_is_started_anew(where: Place) -> None:
    """Provider was killed between the start and the handing over: nobody answers."""
    async with serving(where) as stage:
        box = await stage.active()
        (stage.runtime / "docker" / box.uid).unlink()
        before = stage.docker.inspect(box.uid)["Id"]
        assert await stage.activate(box) in (True, False)
        assert stage.docker.inspect(box.uid)["Id"] != before
        assert await stage.said(box, "echo new") == "new\n"
        await _release(stage, box.uid)


async def test_an_engine_is_killed_and_comes_back() -> None:
    with bench() as folder:
        try:
            with engine(folder) as address, place(_docker(address)) as there:
                async with serving(there) as stage:
                    await _killed_engine(stage, folder)
        except Cannot as error:
            pytest.skip(f"no engine of containers: {error}")


async def _killed_engine(stage: Stage, folder: Path) -> None:
    box = await stage.active()
    await stage.said(box, "echo kept > file")
    await stage.caller.start(box, "lost", "echo begun; sleep 1000")
    os.kill(int((folder / "d/pid").read_text()), signal.SIGKILL)
    # The container goes on, and so does what runs in it: only nothing can be started.
    assert await stage.said(box, "cat file") == "kept\n"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stage.inspect(box)
    assert reason(refused.value) == ErrorReason.ERROR_REASON_SERVICE_UNAVAILABLE
    with daemon(folder / "d", *ALONE):
        # An engine without live-restore ends what it finds running.
        assert (await stage.caller.wait(box, "lost")).exit.WhichOneof("reason") == "lost"
        assert await stage.activate(box)
        assert await stage.said(box, "cat file") == "kept\n"
        assert await stage.caller.output(box, "lost") == b"begun\n"
        await _release(stage, box.uid)
        assert stage.docker.names() == set()


async def _release(stage: Stage, *uids: str) -> None:
    for uid in uids:
        assert (await stage.stub.ReleaseEnvironment(stage.releasing(uid))).existed
    assert stage.docker.names() == set()


def _docker(address: str) -> Docker:
    return Docker(Path(address.removeprefix("unix://")))
