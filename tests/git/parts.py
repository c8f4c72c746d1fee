"""The parts of the git service put together without its gRPC face, and repositories to use."""

import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.git.cell import Cells
from services.git.commit import Committer, Person
from services.git.credentials import Credentials
from services.git.record import Record, Records
from services.git.remote import Rules
from services.git.repository import Caller, Repositories
from services.git.transport import Bounds, Transport
from services.git.workspace import Workspace
from services.git.worktrees import Wanted, Worktrees

SERVER = Person("Cove", "cove@localhost")
CALLER = Caller(tenant="acme", principal="ada", credentials=Credentials())
UID = "aaaaaaaaaaaaaaaa"
OTHER = "bbbbbbbbbbbbbbbb"

_ENV: Mapping[str, str] = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}


def run_git(path: Path, *arguments: str, stdin: bytes = b"", check: bool = True) -> str:
    """Plain git, as a user would run it."""
    result = subprocess.run(
        ["git", "-C", str(path), "-c", "safe.directory=*", *arguments],
        env=_ENV,
        input=stdin,
        capture_output=True,
        check=False,
    )
    if check and result.returncode != 0:
        raise AssertionError(result.stderr.decode())
    return result.stdout.decode("utf-8", "surrogateescape").strip()


def make_source(path: Path, files: Mapping[str, str] | None = None) -> Path:
    """A repository with one commit on `main`."""
    path.mkdir(parents=True)
    run_git(path, "init", "-q", "-b", "main")
    add_commit(path, files or {"README": "hello\n", "src/a.txt": "one\ntwo\n"})
    return path


def add_commit(path: Path, files: Mapping[str, str], message: str = "Change") -> str:
    """Write files and commit them; the commit's id."""
    for name, text in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    run_git(path, "add", "-A")
    run_git(path, "commit", "-q", "-m", message)
    return run_git(path, "rev-parse", "HEAD")


@dataclass(frozen=True, slots=True)
class Parts:
    """What a test uses."""

    state: Path
    cells: Cells
    records: Records
    worktrees: Worktrees
    committer: Committer

    async def create(self, source: Path | str, uid: str = UID, **wanted: str) -> Record:
        """A worktree of `source` on the branch `work`."""
        repository = f"file://{source}" if isinstance(source, Path) else source
        values = {"revision": "", "branch": "work"} | wanted
        return await self.worktrees.create(
            Wanted(uid=uid, repository=repository, **values),  # type: ignore[arg-type]
            CALLER,
        )

    async def ready(self, uid: str = UID) -> tuple[Record, Workspace]:
        """The worktree with its workspace."""
        return await self.worktrees.ready(uid, CALLER.tenant)


@asynccontextmanager
async def parts(
    state: Path, rules: Rules, *, repository_bytes: int = 1 << 30
) -> AsyncIterator[Parts]:
    """The service's parts over `state`, as app.py makes them."""
    directory = state / "git"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    state.chmod(0o700)
    cells = Cells()
    bounds = Bounds(timeout=60, repository_bytes=repository_bytes)
    transport = Transport(cells, rules, bounds, state)
    repositories = Repositories(directory / "repositories", cells, transport, access_ttl=300)
    records = Records(directory / "worktrees")
    worktrees = Worktrees(records, repositories, cells, rules)
    await worktrees.load()
    yield Parts(state, cells, records, worktrees, Committer(records, SERVER))


def write(workspace: Workspace, name: str | bytes, content: str | bytes) -> Path:
    """Write a file into a worktree, as the program in its sandbox would."""
    path = workspace.tree / os.fsdecode(name)
    new = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    own(workspace, *new, path)
    return path


def own(workspace: Workspace, *paths: Path) -> None:
    """Give paths to the one who runs in the sandbox."""
    owner = workspace.cells.sandbox
    for path in paths:
        os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
