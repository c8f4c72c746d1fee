"""Provider, and the engine itself, end: what was told stays, and all is found again."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
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
    duration.FromTimedelta(timedelta(minutes=4))
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
        assert await stage.activate(box)
        assert stage.docker.inspect(box.uid)["Id"] != before
        assert await stage.said(box, "echo new") == "new\n"
        await _release(stage, box.uid)


async def test_an_engine_ends_and_comes_back() -> None:
    with bench() as folder, contextlib.ExitStack() as running:
        try:
            docker = _docker(running.enter_context(engine(folder)))
        except Cannot as error:
            pytest.skip(f"no engine of containers: {error}")
        with place(docker) as there:
            async with serving(there) as stage:
                await _ending_engine(stage, folder, running.close)


async def _ending_engine(stage: Stage, folder: Path, end: Callable[[], None]) -> None:
    box = await stage.active()
    await stage.said(box, "echo kept > file")
    await stage.caller.start(box, "lost", "echo begun; sleep 1000")
    async for _ in stage.caller.read(box, "lost"):
        break
    await asyncio.to_thread(end)
    # An engine without live-restore ends its containers when it ends.
    assert (await stage.caller.wait(box, "lost")).exit.WhichOneof("reason") == "lost"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stage.inspect(box)
    assert reason(refused.value) == ErrorReason.ERROR_REASON_SERVICE_UNAVAILABLE
    with daemon(folder / "d", *ALONE):
        assert await stage.activate(box)
        assert await stage.said(box, "cat file") == "kept\n"
        assert await stage.caller.output(box, "lost") == b"begun\n"
        await _release(stage, box.uid)


async def _release(stage: Stage, *uids: str) -> None:
    for uid in uids:
        assert (await stage.stub.ReleaseEnvironment(stage.releasing(uid))).existed
    assert stage.docker.names() == set()


def _docker(address: str) -> Docker:
    return Docker(Path(address.removeprefix("unix://")))
