"""One suite, as `cove up` starts it, for all that need none of their own; a repository for each."""

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.support.suite import Suite, running_suite


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    async with running_suite(tmp_path_factory.mktemp("suite")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="package")
async def http(suite: Suite) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {suite.token}"}
    async with httpx.AsyncClient(
        base_url=f"http://{suite.http}", headers=headers, timeout=60, trust_env=False
    ) as client:
        yield client


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A bare repository with one commit on `main`, that can be pushed to."""
    work, bare = tmp_path / "work", tmp_path / "app.git"
    work.mkdir()
    (work / "README").write_text("hello\n")
    author = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for command in (
        ["git", "init", "-q", "-b", "main"],
        ["git", "add", "README"],
        ["git", *author, "commit", "-qm", "Begin"],
        ["git", "clone", "-q", "--bare", ".", str(bare)],
    ):
        subprocess.run(command, cwd=work, check=True, capture_output=True)
    return bare


def head_of(repository: Path, branch: str) -> str:
    command = ["git", "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    return done.stdout.strip()
