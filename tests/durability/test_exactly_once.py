"""Whoever dies at whatever step of a start: asked again, the command ran once, or never."""

import asyncio
import json
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc
import pytest

from agent.launcher_client import LauncherClient
from agent.protocol import SandboxSpec
from cove.executor.v1 import executor_pb2 as pb
from tests.durability import walk
from tests.durability.walking import FEW, POINTS, Walking, chosen, walked
from tests.executor.conftest import box as box
from tests.executor.conftest import caller as caller
from tests.executor.node import (
    Caller,
    Node,
    Sandbox,
    calling,
    running_node,
    start,
    until,
)

UNSURE = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION
"""What is told of a start whose agent died: it may be asked for again."""
INSIDE = """
from agent.inside import walk
_main = main


def main():
    walk.Walk("/workspace/.walk", "Requests.receive").begin()
    return _main()
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """Its agents can be told to die."""
    folder = Path(tempfile.mkdtemp(prefix="cd", dir="/tmp"))
    state, runtime = folder / "s", folder / "r"
    for each in (state, runtime):
        each.mkdir(mode=0o700)
    try:
        with running_node(state, runtime) as running:
            (inside,) = state.glob("launcher/*/agent/inside")
            shutil.copyfile(walk.__file__, inside / "walk.py")
            with (inside / "main.py").open("a") as main:
                main.write(INSIDE)
            for compiled in inside.glob("__pycache__/main.*"):
                compiled.unlink()
            yield running
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def walking(tmp_path: Path) -> Walking:
    return Walking(tmp_path)


@asynccontextmanager
async def mortal_executor(node: Node, walking: Walking) -> AsyncIterator[Caller]:
    address = f"unix:{node.runtime}/w{uuid.uuid4().hex[:8]}"
    env = node.environment(address)
    argv = [str(walking.folder), "ExecutorServicer.StartExecution", "services.executor"]
    with walked(argv, env) as process:
        assert process.stdout
        assert json.loads(await asyncio.to_thread(process.stdout.readline))
        async with calling(address) as caller:
            yield caller


def request(box: Sandbox, name: str) -> pb.StartExecutionRequest:
    made = start(box, name, f"echo x >> count-{name}")
    made.request_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{box.uid}/{name}"))
    return made


def runs(box: Sandbox, name: str) -> int:
    """How often the command of that execution ran."""
    try:
        return (box.tree / f"count-{name}").read_text().count("x")
    except FileNotFoundError:
        return 0


async def started(caller: Caller, box: Sandbox, name: str) -> bool:
    """Ask for a start; false when the caller cannot know, and is to ask again."""
    with suppress_unsure():
        await caller.executions.StartExecution(request(box, name), timeout=20)
        return True
    return False


@contextmanager
def suppress_unsure() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() not in UNSURE:
            raise


async def one_start(
    node: Node, box: Sandbox, walking: Walking, name: str, point: str, *, prepared: bool
) -> bool:
    """Start a command with an executor that dies at `point`; whether its caller heard of that."""
    walking.never()
    async with mortal_executor(node, walking) as mortal:
        if prepared:
            await mortal.execute(box, "true")
            folder = node.state / "executor" / "executions" / box.uid

            async def ready() -> bool:
                return any(folder.glob(".new-*"))

            await until(ready)
        walking.at(point)
        if not await started(mortal, box, name):
            return True
        if not point:
            await mortal.wait(box, name)
        return False


async def walk_the_executor(
    node: Node, box: Sandbox, caller: Caller, walking: Walking, most: int, *, prepared: bool
) -> None:
    await one_start(node, box, walking, "first", "", prepared=prepared)
    points = walking.points()
    assert len(points) > 100
    died = 0
    for number, point in enumerate(chosen(points, most)):
        name = f"e{number}"
        died += await one_start(node, box, walking, name, point, prepared=prepared)
        assert runs(box, name) <= 1, point
        await caller.executions.StartExecution(request(box, name))
        ended = (await caller.wait(box, name)).exit
        assert (ended.WhichOneof("reason"), ended.code) == ("code", 0), (point, ended)
        assert runs(box, name) == 1, point
    assert died
    told = f"{len(points)} points, {died} of {most} before the answer"
    print(f"executor, prepared {prepared}: {told}")  # noqa: T201


async def test_an_executor_that_dies_at_some_lines_starts_once(
    node: Node, box: Sandbox, caller: Caller, walking: Walking
) -> None:
    await walk_the_executor(node, box, caller, walking, FEW, prepared=True)


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("prepared", [False, True])
async def test_an_executor_that_dies_at_any_line_starts_once(
    node: Node, box: Sandbox, caller: Caller, walking: Walking, prepared: bool
) -> None:
    await walk_the_executor(node, box, caller, walking, POINTS, prepared=prepared)


def walking_inside(box: Sandbox) -> Walking:
    walking = Walking(box.tree / ".walk")
    walking.folder.mkdir()
    walking.folder.chmod(0o777)
    return walking


async def agent_points(node: Node, caller: Caller) -> list[str]:
    """Those of an agent that starts a command."""
    async with node.sandbox() as box:
        walking = walking_inside(box)
        walking.at("")
        await caller.executions.StartExecution(request(box, "one"))
        await caller.wait(box, "one")
        return walking.points()


async def one_agent(node: Node, caller: Caller, point: str) -> str:
    """How the execution ended whose agent, or whose process, died at `point`."""
    async with node.sandbox() as box:
        walking = walking_inside(box)
        walking.at(point)
        await started(caller, box, "one")
        walking.never()
        assert runs(box, "one") <= 1, point

        async def started_again() -> bool:
            """As a gateway does it: it wakes the environment, and asks again."""
            async with LauncherClient.connect(node.runtime / "launcher") as launcher:
                await launcher.start(SandboxSpec(uid=box.uid, worktree=str(box.tree)))
            return await started(caller, box, "one")

        await until(started_again)
        ended = (await caller.wait(box, "one")).exit
        reason = ended.WhichOneof("reason")
        assert reason in ("lost", "signal") or runs(box, "one") == 1, point
        assert runs(box, "one") <= 1, point
        return str(reason)


async def walk_the_agent(node: Node, caller: Caller, most: int) -> None:
    points = await agent_points(node, caller)
    assert len(points) > 100
    ends = []
    for point in chosen(points, most):
        try:
            ends.append(await one_agent(node, caller, point))
        except BaseException as error:
            error.add_note(f"it died at {point}")
            raise
    counts = {end: ends.count(end) for end in sorted(set(ends))}
    print(f"agent: {len(points)} points, {counts}")  # noqa: T201


async def test_an_agent_that_dies_at_some_lines_starts_once(node: Node, caller: Caller) -> None:
    await walk_the_agent(node, caller, FEW)


@pytest.mark.long
@pytest.mark.timeout(3000)
async def test_an_agent_that_dies_at_any_line_starts_once(node: Node, caller: Caller) -> None:
    await walk_the_agent(node, caller, POINTS)
