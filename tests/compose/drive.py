"""Uses the suite through the published gateway, and restarts its containers meanwhile."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cove.client import Client
from cove.executions import Execution
from cove.executor.v1.executor_pb2 import Chunk, Exit
from cove.executor.v1.executor_pb2 import Execution as Message
from cove.workspaces import Workspace
from tests.compose.daemon import Suite
from tests.compose.machine import say

_RESTARTED: Final = ("registry", "git", "provider", "executor", "gateway")
_BOUND: Final = 120.0
_COUNT: Final = "i=0; until [ -e stop ]; do i=$((i+1)); echo $i; sleep 0.05; done; echo end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Where the gateway is, seen from this host."""

    grpc: str
    http: str
    token: str


async def drive(suite: Suite, published: Published, repository: Path) -> None:
    """All that is to hold. Raises `AssertionError` where it does not."""
    _check_http(published)
    async with Client(published.grpc, published.token, patience=_BOUND) as cove:
        found = await cove.capabilities()
        say(f"the gateway answers; capabilities: {' '.join(str(found).split())}")
        workspace = await cove.workspaces.create("file:///srv/repositories/app.git", id="first")
        await _work(workspace, repository)
        await workspace.delete()
        assert [each.id async for each in cove.workspaces.list()] == []
        workspace = await cove.workspaces.create("file:///srv/repositories/app.git", id="second")
        for service in _RESTARTED:
            await _survives(suite, workspace, service)
        await _ends_with_the_launcher(suite, workspace)
        await workspace.delete(force=True)


def _check_http(published: Published) -> None:
    def status(token: str) -> int:
        asked = urllib.request.Request(url, headers={"authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    url = f"http://{published.http}/workspaces"
    assert status("wrong") == 401
    assert status(published.token) == 200


async def _work(workspace: Workspace, repository: Path) -> None:
    """Execute, status, files, commit, push, and the end of a command by its timeout."""
    ran = await workspace.execute("sh", "-c", "id -u; git log --format=%s; echo made > new.txt")
    assert ran.check().text == "60900\nFirst\n", ran
    # What only its owner could remove must not keep the workspace from going.
    mean = "mkdir -m 1777 ~/sticky && touch ~/sticky/file && mkdir -m 500 ~/closed"
    (await workspace.execute(script=mean)).check()
    status = await workspace.status()
    assert [each.path for each in status.entries] == ["new.txt"], status
    await workspace.write("written.txt", b"from outside\n")
    assert (await workspace.execute("cat", "written.txt")).text == "from outside\n"
    assert await workspace.read("new.txt") == b"made\n"
    hidden = "env -i setsid sh -c 'sleep 1000 &'; setsid sleep 1000 & sleep 1000"
    limited = await workspace.execute(script=hidden, timeout=1)
    assert limited.execution.exit.WhichOneof("reason") == "timed_out", limited
    left = (await workspace.execute("sh", "-c", "grep -l sleep /proc/[0-9]*/comm || true")).text
    assert left == "", left
    await workspace.commit("Second", author=("Ada", "ada@example.org"))
    await workspace.push()
    argv = ["git", "-c", "safe.directory=*", "-C", str(repository)]
    argv += ["log", "--format=%s", "cove/first"]
    log = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    said, _ = await log.communicate()
    assert said == b"Second\nFirst\n", said
    say("create, execute, files, status, timeout, commit, push: as told")


async def _survives(suite: Suite, workspace: Workspace, service: str) -> None:
    """A command goes on and all of its output arrives while the service is restarted."""
    async with _running(workspace, f"during-{service}") as (execution, reading):
        await _restart(suite, service)
        assert (await execution.refresh()).state == Message.STATE_RUNNING, execution.message
        await workspace.write("stop", b"")
        seen, end = await reading
    lines = seen.splitlines()
    count = len(lines) - 1
    assert lines == [*(str(number) for number in range(1, count + 1)), "end"], lines[-5:]
    assert end.WhichOneof("reason") == "code", end
    assert end.code == 0, end
    assert (await _read(execution))[0] == seen
    await workspace.remove("stop")
    say(f"{service} restarted: {count + 1} lines, none lost")


async def _ends_with_the_launcher(suite: Suite, workspace: Workspace) -> None:
    """The one container whose end is the sandboxes' end: that is told, and work goes on."""
    async with _running(workspace, "during-launcher") as (execution, reading):
        await _restart(suite, "launcher")
        seen, end = await reading
    assert end.WhichOneof("reason") == "lost", end
    assert seen.startswith("1\n2\n"), seen[:80]
    assert (await _read(execution))[0] == seen
    assert (await workspace.execute("echo", "again")).check().text == "again\n"
    say(f"launcher restarted: lost, as told ({end.lost.reason}); the next command runs")


async def _restart(suite: Suite, service: str) -> None:
    container = await asyncio.to_thread(suite.container, service)
    await asyncio.to_thread(suite.docker, "restart", "--time", "30", container)
    await asyncio.to_thread(suite.healthy)


@asynccontextmanager
async def _running(
    workspace: Workspace, name: str
) -> AsyncIterator[tuple[Execution, "asyncio.Task[tuple[str, Exit]]"]]:
    """A command that counts until it is stopped, some of whose output has come."""
    execution = await workspace.start("sh", "-c", _COUNT, id=name)
    begun = asyncio.Event()
    async with asyncio.timeout(_BOUND):
        reading = asyncio.create_task(_read(execution, begun))
        try:
            await begun.wait()
            yield execution, reading
        finally:
            reading.cancel()
            await asyncio.wait([reading])


async def _read(execution: Execution, begun: asyncio.Event | None = None) -> tuple[str, Exit]:
    """All of the output and how it ended."""
    seen = b""
    async for event in execution.output():
        if isinstance(event, Exit):
            return seen.decode(), event
        assert isinstance(event, Chunk), event
        seen += event.data
        if begun and seen.count(b"\n") >= 3:
            begun.set()
    raise AssertionError("no end")
