"""Real suites, of whoever runs the tests and, by root, of an ordinary user; they run examples."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from _pytest.mark import ParameterSet

from tests.support.people import entering
from tests.support.repository import git, make_repository
from tests.support.suite import Done, Suite, running_suite

ROOT: Final = Path(__file__).parent.parent.parent
_BOUND: Final = 120.0
_ORDINARY: Final = 60904


@dataclass(frozen=True, slots=True)
class Bench:
    """Where an example is run: a suite, its user, and a folder of that user."""

    suite: Suite
    folder: Path

    async def start(self, example: str, *arguments: str) -> asyncio.subprocess.Process:
        """Start an example as somebody at a shell would."""
        argv = ["env", "-C", str(self.folder), sys.executable, "-Werror"]
        argv += [str(ROOT / "examples" / example), *arguments]
        user = self.suite.user
        return await asyncio.create_subprocess_exec(
            *(entering(self.suite.process.pid, user, argv) if user is not None else argv),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**self.suite.env, "COVE_STATE": str(self.suite.state), "TMPDIR": str(self.folder)},
        )  # fmt: skip

    async def run(self, example: str, *arguments: str) -> Done:
        """Run an example to its end."""
        process = await self.start(example, *arguments)
        async with asyncio.timeout(_BOUND):
            stdout, stderr = await process.communicate()
        assert process.returncode is not None
        return Done(process.returncode, stdout, stderr)

    def repository(self, files: Mapping[str, str] | None = None) -> Path:
        """A bare repository of the suite's user, that can be pushed to."""
        make_repository(self.folder / "work", files)
        git(self.folder, "clone", "--quiet", "--bare", "work", "app.git")
        self.give()
        return self.folder / "app.git"

    def give(self) -> None:
        """All that is in the folder is the user's."""
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, _uid(self.suite), _uid(self.suite), follow_symlinks=False)

    async def nothing_left(self) -> None:
        """No workspace is there, kept ones included."""
        async with self.suite.client() as cove:
            assert [each async for each in cove.workspaces.list(show_deleted=True)] == []


def _uid(suite: Suite) -> int:
    return suite.user if suite.user is not None else os.geteuid()


def _users() -> list[ParameterSet]:
    own = pytest.param(None, id="own")
    ordinary = pytest.param(_ORDINARY, id="ordinary", marks=pytest.mark.long)
    return [own, ordinary] if os.geteuid() == 0 else [own]


@pytest_asyncio.fixture(scope="package", loop_scope="package", params=_users())
async def suite(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Suite]:
    base = tmp_path_factory.mktemp("examples")
    async with running_suite(base, user=request.param) as running:
        yield running


@pytest.fixture
def bench(suite: Suite) -> Iterator[Bench]:
    folder = Path(tempfile.mkdtemp(prefix="cv-", dir="/tmp"))
    made = Bench(suite, folder)
    made.give()
    yield made
    shutil.rmtree(folder)
