"""Uses the suite through the published gateway, and restarts its containers meanwhile."""

import asyncio
import os
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cove.client import Client
from cove.workspace import Workspace
from tests.compose.daemon import Suite
from tests.compose.images import check_images
from tests.compose.machine import ROOT, say
from tests.compose.restarts import check_restarts
from tests.compose.tokens import check_tokens

_BOUND: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Where the gateway is, seen from this host."""

    grpc: str
    http: str
    token: str


async def drive(suite: Suite, published: Published, repository: Path) -> None:
    """All that is to hold. Raises `AssertionError` where it does not."""
    check_images(suite)
    check_tokens(suite)
    _check_http(published)
    await asyncio.to_thread(_demo, published, repository)
    async with Client(published.grpc, published.token, patience=_BOUND) as cove:
        found = await cove.capabilities()
        say(f"the gateway answers; capabilities: {' '.join(str(found).split())}")
        workspace = await cove.workspaces.create("file:///srv/repositories/app.git", id="first")
        await _work(workspace, repository)
        await workspace.delete()
        assert [each.id async for each in cove.workspaces.list()] == []
        workspace = await cove.workspaces.create("file:///srv/repositories/app.git", id="second")
        await check_restarts(suite, workspace)
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


def _demo(published: Published, repository: Path) -> None:
    """What `make demo` does, against this suite."""
    env = {**os.environ, "COVE_ADDRESS": published.grpc, "COVE_TOKEN": published.token}
    argv = [sys.executable, str(ROOT / "scripts/demo.py"), "file:///srv/repositories/app.git"]
    ran = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=_BOUND)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    branches = [
        "git",
        "-c",
        "safe.directory=*",
        "-C",
        str(repository),
        "branch",
        "--format=%(subject)",
    ]
    pushed = subprocess.run([*branches, "--list", "cove/demo-*"], capture_output=True, text=True)
    assert pushed.stdout == "Say hello from Cove\n", pushed
    say(f"the demo, against these containers:\n{ran.stdout.strip()}")


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
