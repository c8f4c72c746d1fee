"""`cove up`, the real one: what it starts, keeps running, leaves, and takes over."""

import asyncio
import json
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from cove.client import Client
from cove.executor.v1.executor_pb2 import Chunk, Exit
from cove.status import Unauthenticated
from tests.support.repository import git, make_repository
from tests.support.suite import SERVICES, Suite, children, running_suite, until

_COUNT = "i=0; while [ $i -lt 30 ]; do echo line $i; i=$((i+1)); sleep 0.1; done; exit 7"
_COUNTED = b"".join(b"line %d\n" % number for number in range(30))


async def whole_output(client: Client, workspace: str, execution: str) -> tuple[bytes, int]:
    output, code = b"", -1
    events = client.workspaces.named(workspace).executions.named(execution).output()
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Chunk):
                assert event.offset == len(output)
                output += event.data
            if isinstance(event, Exit):
                code = event.code
    return output, code


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not yet reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A short directory that outlives the suite that is killed in it."""
    folder = Path(tempfile.mkdtemp(prefix="cv-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


async def test_it_tells_where_it_is_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with running_suite(tmp_path) as suite:
        left = json.loads((suite.state / "endpoint.json").read_text())
        assert (left["grpc"], left["pid"]) == (suite.grpc, suite.process.pid)
        for folder in (suite.state, suite.runtime):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert suite.token_file
        assert stat.S_IMODE(suite.token_file.stat().st_mode) == 0o600
        async with suite.client() as cove:
            assert set((await cove.health()).values()) == {"SERVING"}
            demo = await cove.workspaces.create(id="demo")
            assert (await demo.execute("echo", "hi")).stdout == b"hi\n"
        async with Client(suite.grpc, "wrong") as stranger:
            with pytest.raises(Unauthenticated):
                await stranger.workspaces.get("demo")
        again = await suite.cove("up", "--state", str(suite.state), "--runtime", str(suite.runtime))
        assert again.status == 1
        assert f"process {suite.process.pid}" in again.errors
        nice = {name: os.getpriority(os.PRIO_PROCESS, suite.pid(name)) for name in SERVICES}
        first = os.getpriority(os.PRIO_PROCESS, 0)
        assert nice["gateway"] == nice["registry"] == first
        assert nice["executor"] == nice["git"] == nice["provider"] == min(19, first + 5)
        processes = [suite.launcher_pid(), *children(suite.launcher_pid()), suite.proxy_pid()]
        processes += [suite.pid(name) for name in SERVICES]
        assert all(processes)
        assert await suite.stop() == 0
        assert not any(map(alive, processes))
        assert not (suite.state / "endpoint.json").exists()
        stopped = [line["service"] for line in _logged(suite) if line["message"] == "stopping"]
        assert stopped[0] == "gateway"
        assert sorted(stopped) == sorted(SERVICES)


async def test_what_dies_is_started_again_in_the_same_place(tmp_path: Path) -> None:
    async with running_suite(tmp_path) as suite, suite.client() as cove:
        demo = await cove.workspaces.create(id="demo")
        running = await demo.start(script=_COUNT)
        for name in SERVICES:
            await suite.kill(name)
        reader, writer = await asyncio.open_connection(*suite.http.split(":"))
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b" 200 " in await reader.readline()
        writer.close()
        assert await whole_output(cove, "demo", running.id) == (_COUNTED, 7)
        before = suite.launcher_pid()
        os.kill(before, signal.SIGKILL)
        await until(lambda: suite.launcher_pid() not in (0, before), "the launcher is back")
        assert (await demo.execute("echo", "still")).stdout == b"still\n"
        await demo.delete(force=True)


async def test_a_killed_one_is_taken_over_with_what_runs(tmp_path: Path, runtime: Path) -> None:
    async with running_suite(tmp_path, runtime=runtime) as first:
        async with first.client() as cove:
            demo = await cove.workspaces.create(id="demo")
            running = await demo.start(script=_COUNT)
        services = [first.pid(name) for name in SERVICES]
        launcher = first.launcher_pid()
        os.kill(first.process.pid, signal.SIGKILL)
        async with running_suite(tmp_path, state=first.state, runtime=first.runtime) as second:
            assert not any(map(alive, services))
            assert second.launcher_pid() == launcher
            async with second.client() as cove:
                assert await whole_output(cove, "demo", running.id) == (_COUNTED, 7)
                await cove.workspaces.named("demo").delete(force=True)
            assert await second.stop() == 0


async def test_keep_leaves_the_sandboxes_running(tmp_path: Path, runtime: Path) -> None:
    async with running_suite(tmp_path, runtime=runtime, arguments=["--keep"]) as first:
        async with first.client() as cove:
            demo = await cove.workspaces.create(id="demo")
            running = await demo.start(script=_COUNT)
        launcher = first.launcher_pid()
        assert await first.stop() == 0
        assert first.launcher_pid() == launcher
        async with running_suite(tmp_path, state=first.state, runtime=first.runtime) as second:
            async with second.client() as cove:
                assert await whole_output(cove, "demo", running.id) == (_COUNTED, 7)
            assert await second.stop() == 0
            assert not alive(launcher)


async def test_without_authentication_no_token_is_needed(tmp_path: Path) -> None:
    async with running_suite(tmp_path, arguments=["--no-auth"]) as suite:
        assert suite.token_file is None
        async with Client(suite.grpc, "") as cove:
            assert [each async for each in cove.workspaces.list()] == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_an_ordinary_user_has_all_of_it(tmp_path: Path) -> None:
    async with running_suite(tmp_path, user=60901) as suite:
        origin = suite.state.parent / "origin"
        make_repository(origin)
        for path in (origin, *origin.rglob("*")):
            os.lchown(path, 60901, 60901)
        created = await suite.cove("create", str(origin), "--id", "demo")
        assert created.status == 0, created.errors
        ran = await suite.cove("exec", "demo", "--", "sh", "-c", "id -un; echo 1 > new.txt")
        assert ran.text == "cove\n", ran.errors
        committed = await suite.cove("commit", "demo", "-m", "Add new.txt")
        assert committed.status == 0, committed.errors
        pushed = await suite.cove("push", "demo")
        assert pushed.status == 0, pushed.errors
        assert "Add new.txt" in git(origin, "log", "cove/demo", "--format=%s")
        await suite.kill("executor")
        assert (await suite.cove("exec", "demo", "--", "cat", "new.txt")).text == "1\n"
        processes = [suite.launcher_pid(), *children(suite.launcher_pid())]
        assert await suite.stop() == 0
        assert not any(map(alive, processes))


def _logged(suite: Suite) -> list[dict[str, str]]:
    lines = suite.log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


async def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    async with running_suite(tmp_path) as suite, suite.client() as cove:
        demo = await cove.workspaces.create(id="demo")
        running = await demo.start("sleep", "60")
        watching = asyncio.create_task(whole_output(cove, "demo", running.id))
        suite.process.send_signal(signal.SIGTERM)
        suite.process.send_signal(signal.SIGINT)
        assert await suite.stop(signal.SIGINT) == 0
        watching.cancel()
        await asyncio.wait([watching])
