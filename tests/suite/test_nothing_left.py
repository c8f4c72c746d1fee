"""A create that fails, or whose services die, leaves nothing; and neither does the suite itself."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cove import status
from cove.client import Client
from cove.gateway.v1 import gateway_pb2 as pb
from tests.support.suite import Suite, running_suite, until

pytestmark = pytest.mark.asyncio(loop_scope="package")

# Short, so that a test sees what takes over when a gateway is gone.
ENV = {
    "COVE_GATEWAY__LEASE": "2",
    "COVE_GATEWAY__RECONCILE_INTERVAL": "1",
    "COVE_GATEWAY__ORPHAN_GRACE": "0",
}


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    async with running_suite(tmp_path_factory.mktemp("left"), env=ENV) as running:
        yield running


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A repository that takes a while to clone and check out."""
    folder = tmp_path / "large"
    folder.mkdir()
    for number in range(1500):
        path = folder / f"d{number % 50}" / f"f{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{number}\n" * 50)
    author = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], [*author, "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def left_of(suite: Suite) -> list[str]:
    """What a workspace leaves when it is not fully gone, whichever way."""
    places = [
        *(suite.state / "git" / "worktrees").glob("*"),
        *(suite.state / "provider" / "environments").glob("*"),
        *(suite.state / "executor" / "executions").glob("*"),
        *(suite.runtime / "a").glob("*"),
    ]
    refs = [
        line
        for repository in (suite.state / "git" / "repositories").glob("*/*.git")
        for line in refs_of(repository)
    ]
    return [*map(str, places), *refs, *mounts(suite)]


def refs_of(repository: Path) -> list[str]:
    try:
        return git(repository, "for-each-ref", "refs/cove").splitlines()
    except subprocess.CalledProcessError:  # While it is made, or removed.
        return [f"half a repository {repository}"]


def mounts(suite: Suite) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(suite.state) in line or str(suite.runtime) in line]


def git(repository: Path, *arguments: str) -> str:
    command = ["git", "-c", "safe.directory=*", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def gone_or_ready(cove: Client, suite: Suite, name: str) -> str:
    """Wait until a workspace is settled; `gone` or `ready`. A ready one is tried, and removed."""
    state = ""

    async def settled() -> bool:
        nonlocal state
        try:
            workspace = await cove.workspaces.get(name)
        except status.NotFound:
            state = "gone"
            return not left_of(suite)
        state = pb.Workspace.State.Name(workspace.message.state).removeprefix("STATE_").lower()
        return state == "ready"

    async with asyncio.timeout(45):
        while not await settled():  # noqa: ASYNC110 - the service tells of no event.
            await asyncio.sleep(0.1)
    if state == "ready":
        workspace = await cove.workspaces.get(name)
        assert (await workspace.execute("true")).exit_status == 0
        await workspace.delete(force=True)
    return state


@pytest.mark.parametrize(
    ("repository", "revision", "driver"),
    [
        ("file:///nowhere/at-all", "", ""),
        ("file://{large}", "no-such-revision", ""),
        ("file://{large}", "", "no-such-driver"),
    ],
)
async def test_a_create_that_is_refused_leaves_nothing(
    suite: Suite, large: Path, repository: str, revision: str, driver: str
) -> None:
    async with suite.client() as cove:
        with pytest.raises(status.CoveError):
            await cove.workspaces.create(
                repository=repository.format(large=large),
                revision=revision,
                driver=driver,
                id="refused",
            )
        assert await gone_or_ready(cove, suite, "refused") == "gone"
    assert left_of(suite) == []


@pytest.mark.parametrize(
    "victim",
    [
        "git",
        "gateway",
        pytest.param("registry", marks=pytest.mark.long),
        pytest.param("provider", marks=pytest.mark.long),
    ],
)
async def test_a_create_during_which_a_service_dies_ends_ready_or_gone(
    suite: Suite, large: Path, victim: str
) -> None:
    name = f"dies-{victim}"
    async with suite.client() as cove:
        making = asyncio.create_task(cove.workspaces.create(repository=f"file://{large}", id=name))
        worktrees = suite.state / "git" / "worktrees"
        await until(lambda: making.done() or any(worktrees.glob("*")), "the worktree is being made")
        await suite.kill(victim)
        made = (await asyncio.gather(making, return_exceptions=True))[0]
        ended = await gone_or_ready(cove, suite, name)
        # Who was told that it is there finds it; who was told of a failure may try again.
        assert ended == "ready" or isinstance(made, status.CoveError)
        await until(lambda: left_of(suite) == [], "everything is gone")


async def test_the_suite_leaves_no_process_and_no_mount_behind(tmp_path: Path) -> None:
    async with running_suite(tmp_path) as suite, suite.client() as cove:
        workspace = await cove.workspaces.create(repository="", id="busy")
        await workspace.start("sleep", "1000")
        assert processes_of(suite)
        await suite.stop()
        await until(lambda: processes_of(suite) == [], "every process is gone")
        assert mounts(suite) == []


def processes_of(suite: Suite) -> list[str]:
    """Command lines that name the suite's directories, and whatever runs below its agents."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            environ = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"{suite.runtime}" in command + environ and "pytest" not in command:
            found.append(command)
    return found
