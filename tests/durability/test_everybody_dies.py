"""Gateway, provider, launcher or client dies at whatever step of a start: it ran once."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from agent.launcher_client import LauncherClient, PeerGone
from cove.workspace import Workspace
from tests.attacks.conftest import new
from tests.durability import walk
from tests.durability.starting import script
from tests.durability.walking import DEATHS, FEW, Walking, chosen, walked
from tests.executor.node import (
    NODE,
    Caller,
    Node,
    Sandbox,
    await_listener,
    running_node,
    start,
    until,
)
from tests.support.repository import make_repository
from tests.support.suite import Suite, running_suite

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRIGGERS = {
    "gateway": "Face.StartExecution",
    "services.provider": "ProviderServicer.ActivateEnvironment",
}
AT_BEGIN = """
import sys, threading
for module, trigger in {triggers!r}.items():
    if sys.orig_argv[-1] == module:
        sys.path.append({here!r})
        import walk
        walk.Walk({folder!r} + "/" + module, trigger).begin()
"""
"""Of every Python of the suite: a service is walked from its first line on."""


@dataclass
class Walked:
    suite: Suite
    workspace: Workspace
    folder: Path

    async def fall_asleep(self) -> None:
        async with LauncherClient.connect(self.suite.runtime / "launcher") as launcher:
            await launcher.kill(self.workspace.message.uid)

    async def once(self, name: str) -> None:
        """It ran once, and was told so."""
        execution = await self.workspace.start(script=script(name), id=name)
        ended = (await execution.wait()).exit
        assert (ended.WhichOneof("reason"), ended.code) == ("code", 0), ended
        assert await self.workspace.read(f"count-{name}") == b"x\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def suite_walked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Walked]:
    folder = tmp_path_factory.mktemp("walked")
    for module in TRIGGERS:
        (folder / module).mkdir()
    here = str(Path(walk.__file__).parent)
    customized = AT_BEGIN.format(triggers=TRIGGERS, here=here, folder=str(folder))
    (folder / "sitecustomize.py").write_text(customized)
    make_repository(folder / "app", {"README.md": "hello\n"})
    async with (
        running_suite(folder, env={"PYTHONPATH": str(folder)}) as suite,
        suite.client(patience=60) as cove,
    ):
        workspace = await new(cove, folder / "app")
        yield Walked(suite, workspace, folder)
        await workspace.delete(force=True)


async def walk_a_service(walked: Walked, module: str, most: int) -> None:
    """Where the provider has to do with it the sandbox sleeps; the gateway is walked awake too."""
    walking, died = Walking(walked.folder / module), 0
    asleep = module != "gateway"
    if asleep:
        await walked.fall_asleep()
    service = module.rpartition(".")[2]
    walking.at("")
    await walked.once(f"{service}-all")
    points = walking.points()
    assert len(points) > 30
    await walked.suite.kill(service)
    for number, point in enumerate(chosen(points, most)):
        if asleep or number % 2:
            await walked.fall_asleep()
        walking.at(point)
        await walked.once(f"{service}-{number}")
        if walking.waits():  # What was walked once is not walked again.
            walking.never()
            await walked.suite.kill(service)
        else:
            died += 1
    assert died
    print(f"{module}: {len(points)} points, died at {died} of {most}")  # noqa: T201


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("module", TRIGGERS)
async def test_a_service_that_dies_at_any_line(suite_walked: Walked, module: str) -> None:
    await walk_a_service(suite_walked, module, DEATHS)


async def one_client(walked_suite: Walked, walking: Walking, name: str, point: str) -> None:
    """A client that dies at `point`, and another that asks for the same."""
    suite = walked_suite.suite
    walking.at(point)
    argv = [str(walking.folder), "Workspace.start", "tests.durability.starting", suite.grpc]
    argv += [walked_suite.workspace.id, name]
    env = {"PATH": os.environ["PATH"], "COVE_TOKEN": suite.token}
    with walked(argv, env) as process:
        await asyncio.to_thread(process.wait, 60)
    walking.never()
    await walked_suite.once(name)


async def walk_the_client(walked_suite: Walked, folder: Path, most: int) -> None:
    walking = Walking(folder)
    await one_client(walked_suite, walking, "client-all", "")
    points = walking.points()
    assert len(points) > 30
    for number, point in enumerate(chosen(points, most)):
        await one_client(walked_suite, walking, f"client-{number}", point)
    print(f"client: {len(points)} points, {most} walked")  # noqa: T201


@pytest.mark.long
@pytest.mark.timeout(7200)
async def test_a_client_that_dies_at_any_line(suite_walked: Walked, tmp_path: Path) -> None:
    await walk_the_client(suite_walked, tmp_path, DEATHS)


class Mortal:
    """A node whose launcher can be told to die."""

    def __init__(self, folder: Path) -> None:
        self.node = Node(folder / "s", folder / "r")
        self.walking = Walking(folder)
        for each in (self.node.state, self.node.runtime):
            each.mkdir(mode=0o700)

    @contextmanager
    def launcher(self) -> Iterator[None]:
        """One that runs; what it started goes on when it dies."""
        argv = [str(self.walking.folder), "Server._start", "agent.launcher"]
        argv += ["--runtime", str(self.node.runtime), "--state", str(self.node.state)]
        with walked([*argv, "--node", NODE], {"PATH": os.environ["PATH"]}):
            await_listener(self.node.runtime / "launcher")
            yield

    async def start(self, point: str) -> tuple[Sandbox, bool]:
        """Of a sandbox whose launcher died at `point`, and whether whoever asked heard of that.

        Asked again, as a provider does it, the next launcher sees to it.
        """
        box, spec = self.node.place()
        path, told = self.node.runtime / "launcher", False
        with self.launcher():
            self.walking.at(point)
            with suppress(PeerGone):
                async with LauncherClient.connect(path) as launcher:
                    await launcher.start(spec)
                    told = True
        self.walking.never()
        with self.launcher():

            async def started() -> bool:
                with suppress(PeerGone):  # Of the one before a process may still listen.
                    async with LauncherClient.connect(path) as launcher:
                        await launcher.start(spec)
                        return True
                return False

            await until(started)
        return box, told


async def one_launcher(mortal: Mortal, caller: Caller, point: str) -> bool:
    box, told = await mortal.start(point)
    try:
        await caller.executions.StartExecution(start(box, "one", script("one")), timeout=20)
        ended = (await caller.wait(box, "one")).exit
        assert (ended.WhichOneof("reason"), ended.code) == ("code", 0), (point, ended)
        assert (box.tree / "count-one").read_text() == "x\n", point
    finally:
        with mortal.launcher():
            await mortal.node.end(box)
    return told


async def walk_the_launcher(most: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="cl", dir="/tmp"))
    mortal = Mortal(folder)
    told = 0
    try:
        async with mortal.node.executor() as caller:
            await one_launcher(mortal, caller, "")
            points = mortal.walking.points()
            assert len(points) > 30
            for point in chosen(points, most):
                told += await one_launcher(mortal, caller, point)
        print(f"launcher: {len(points)} points, {told} of {most} after the answer")  # noqa: T201
    finally:
        with running_node(mortal.node.state, mortal.node.runtime):
            pass  # It sees to what those that were killed left.
        shutil.rmtree(folder)


async def test_a_launcher_that_dies_at_some_lines() -> None:
    await walk_the_launcher(FEW)


@pytest.mark.long
@pytest.mark.timeout(7200)
async def test_a_launcher_that_dies_at_any_line() -> None:
    await walk_the_launcher(DEATHS)
