"""Services that are newer than a launcher and the agents it has: what runs goes on, and is served.

The launcher and the agent are those of a release before, as a fixture: the services of today start
sandboxes by it, run commands in them, are replaced, and find all of it again.
"""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.launcher_client import LauncherClient, PeerGone
from cove.executions import Execution
from cove.executor.v1.executor_pb2 import Chunk, Exit
from cove_server.places import Places
from tests.support.repository import make_repository
from tests.support.suite import Suite, listening, running_suite, until
from tests.support.unpacking import unpack
from tests.upgrade.make import FIXTURES

pytestmark = pytest.mark.timeout(240)
_TALK = "while read line; do echo got $line; done; exit 7"


@pytest.fixture
def runtime() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="cv-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@asynccontextmanager
async def older_launcher(folder: Path, state: Path, runtime: Path) -> AsyncIterator[int]:
    """Its pid. It and all its sandboxes are gone after the block."""
    with tarfile.open(FIXTURES / "agent.v1.tar.xz") as tar:
        unpack(tar, folder)
    for each in (state, runtime):
        each.mkdir(mode=0o700, exist_ok=True)
    argv = [sys.executable, "-P", "-m", "agent.launcher", "--node", Places(state, runtime).node()]
    argv += ["--runtime", str(runtime), "--state", str(state)]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder)}
    process = subprocess.Popen(argv, env=env, cwd=folder, stdin=subprocess.DEVNULL)
    try:
        await until(lambda: listening(runtime / "launcher") == process.pid, "it listens")
        yield process.pid
    finally:
        try:
            async with LauncherClient.connect(runtime / "launcher") as launcher:
                await launcher.shutdown(stop_sandboxes=True)
        except PeerGone:
            process.kill()
        process.wait(30)


async def answered(execution: Execution) -> tuple[bytes, int]:
    output, code = b"", -1
    async for event in execution.output():
        output += event.data if isinstance(event, Chunk) else b""
        code = event.code if isinstance(event, Exit) else code
    return output, code


async def test_what_it_runs_goes_on_under_newer_services(tmp_path: Path, runtime: Path) -> None:
    make_repository(tmp_path / "app")
    state = tmp_path / "state"
    async with (
        older_launcher(tmp_path / "older", state, runtime) as launcher,
        # Ends last: the end of its block ends the launcher, too.
        running_suite(tmp_path, state=state, runtime=runtime, arguments=["--keep"]) as first,
    ):
        uid = await begun(first, tmp_path / "app")
        assert first.launcher_pid() == launcher
        assert await first.stop() == 0
        async with running_suite(tmp_path, state=state, runtime=runtime) as second:
            assert second.launcher_pid() == launcher
            await goes_on(second, uid)


async def begun(suite: Suite, repository: Path) -> str:
    async with suite.client() as cove:
        demo = await cove.workspaces.create(id="demo", repository=f"file://{repository}")
        assert (await demo.execute("sh", "-c", "echo 1 > new; echo said")).stdout == b"said\n"
        await demo.start("sleep", "600", id="long")
        counting = await demo.start(script="for i in 1 2 3; do echo $i; done; exit 7", id="count")
        assert await answered(counting) == (b"1\n2\n3\n", 7)
        return (await demo.refresh()).uid


async def goes_on(suite: Suite, uid: str) -> None:
    async with suite.client() as cove:
        demo = await cove.workspaces.get("demo")
        assert (await demo.refresh()).uid == uid
        assert await answered(demo.executions.named("count")) == (b"1\n2\n3\n", 7)
        long = demo.executions.named("long")
        assert (await long.refresh()).HasField("start_time")
        assert not (await long.refresh()).HasField("exit")
        assert (await demo.execute("cat", "new")).stdout == b"1\n"
        assert await demo.read_text("README.md") == "hello\n"
        await demo.write("other", b"2\n")
        made = await demo.commit("Work", author=("Ada", "ada@example.org"))
        assert made.commit.id
        await long.signal(signal.SIGKILL)
        assert (await long.wait()).exit.signal.number == signal.SIGKILL
        await demo.delete(force=True)
