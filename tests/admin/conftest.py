"""A state directory that was really worked in, and is stopped; each test damages a copy of it."""

import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from cove_server.admin.database import FileRegistry
from cove_server.check.finding import Finding
from cove_server.check.look import Asked, Mended, look, mend
from cove_server.places import Places
from services.git.cell import Cells
from services.git.mending import HOMES
from services.provider.config import Config
from services.registry import config as registry
from tests.support.repository import make_repository
from tests.support.suite import Done, Suite, running_suite

_WORK = """
echo committed > file; rm README.md; ln file linked; ln -s /etc/passwd link
truncate -s 8M holes; echo end >> holes; echo kept > ~/home; echo said
"""


@dataclass(frozen=True, slots=True)
class Worked:
    """What the suite left, and a backup that was made while it ran."""

    state: Path
    backup: Path
    uid: str
    """Of the workspace `work`, of a repository, with a commit, a snapshot and an execution."""
    own: str
    """Of the workspace `own`, which has no origin."""
    deleted: str
    """Of one that is deleted, with work that is kept."""
    told: Done


@dataclass(frozen=True, slots=True)
class State:
    """A copy that a test may damage."""

    path: Path
    uid: str
    own: str
    deleted: str

    @property
    def database(self) -> Path:
        return self.path / "registry" / "registry.db"

    @property
    def registry(self) -> FileRegistry:
        return FileRegistry(registry.Config(state=self.path, runtime=self.path / "run"))

    @property
    def worktree(self) -> Path:
        return self.path / "git" / "worktrees" / self.uid

    @property
    def execution(self) -> Path:
        return next((self.path / "executor" / "executions" / self.uid).iterdir())

    def repository(self, uid: str = "") -> Path:
        pattern = f"*/own-{uid}.git" if uid else "*/[0-9a-f]*.git"
        return next((self.path / "git" / "repositories").glob(pattern))

    def sql(self, statement: str, *values: str | int | bytes) -> None:
        with closing(sqlite3.connect(self.database)) as db, db:
            db.execute(statement, values)

    def state_of(self, uid: str) -> int | None:
        with closing(sqlite3.connect(self.database)) as db:
            row = db.execute("SELECT state FROM environment WHERE uid = ?", (uid,)).fetchone()
        return row and int(row[0])

    async def look(self, *, deep: bool = False) -> list[Finding]:
        async with Cells([self.path / "git" / name for name in HOMES]) as cells:
            return await look(self._asked(cells, deep=deep))

    async def mend(self) -> list[Mended]:
        async with Cells([self.path / "git" / name for name in HOMES]) as cells:
            return await mend(self._asked(cells, deep=False))

    def _asked(self, cells: Cells, *, deep: bool) -> Asked:
        runtime = self.path / "run"
        return Asked(
            places=Places(self.path, runtime),
            registry=self.registry,
            provider=Config(state=self.path, runtime=runtime),
            cells=cells,
            deep=deep,
        )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def worked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worked]:
    folder = tmp_path_factory.mktemp("worked")
    make_repository(folder / "app")
    backup = folder / "backup.tar"
    async with running_suite(folder) as suite:
        uids = await _work(suite, folder / "app")
        told = await suite.cove("admin", "backup", str(backup), "--json")
        assert await suite.stop() == 0
    yield Worked(suite.state, backup, *uids, told)


async def _work(suite: Suite, repository: Path) -> tuple[str, str, str]:
    async with suite.client() as cove:
        work = await cove.workspaces.create(id="work", repository=f"file://{repository}")
        assert (await work.execute("sh", "-ec", _WORK)).stdout == b"said\n"
        await work.commit("Work", author=("Ada", "ada@example.org"))
        await work.snapshots.create(id="one")
        await work.execute("sh", "-c", "echo uncommitted > later")
        own = await cove.workspaces.create(id="own")
        await own.execute("sh", "-c", "echo own > file")
        deleted = await cove.workspaces.create(id="deleted", repository=f"file://{repository}")
        await deleted.execute("sh", "-c", "echo unsaved > file")
        await deleted.delete()
        found = [await each.refresh() for each in (work, own, deleted)]
    return found[0].uid, found[1].uid, found[2].uid


@pytest.fixture
def state(worked: Worked, tmp_path: Path) -> State:
    copy = tmp_path / "state"
    subprocess.run(["cp", "-a", "--", worked.state, copy], check=True)
    return State(copy, worked.uid, worked.own, worked.deleted)


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory for sockets, whose paths have to be short."""
    folder = Path(tempfile.mkdtemp(prefix="cv-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)
