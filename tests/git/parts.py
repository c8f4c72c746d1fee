"""The parts of the git service put together without its gRPC face, and repositories to use."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from servicekit.disk import DiskGuard
from services.git.answers import Listing, Progress
from services.git.app import HOMES, in_use
from services.git.app import mode as mode_of
from services.git.cell import Cell, Cells
from services.git.checkouts import Checkouts
from services.git.collisions import Collisions
from services.git.command import Command
from services.git.commit import Committer
from services.git.credentials import Credentials
from services.git.draft import Person
from services.git.foresight import Foresight
from services.git.forks import Forks
from services.git.inside import MAX_COMMITS
from services.git.layout import Layout
from services.git.local import Local
from services.git.merge import Merger
from services.git.mergetree import Merging
from services.git.origins import Caller, Origins
from services.git.process import Running
from services.git.push import Pusher
from services.git.record import Mode, Record
from services.git.records import Records
from services.git.remote import Remote, Rules
from services.git.repositories import Repositories
from services.git.stacks import Stacks
from services.git.targets import Targets
from services.git.transport import Bounds, Transport
from services.git.wanted import Wanted
from services.git.within.wire import Payload
from services.git.workspace import Workspace
from services.git.worktrees import Worktrees
from tests.git.program import Program

SERVER = Person("Cove", "cove@localhost")
CALLER = Caller(tenant="acme", principal="ada", credentials=Credentials())
UID = "aaaaaaaaaaaaaaaa"
OTHER = "bbbbbbbbbbbbbbbb"

_ENV: Mapping[str, str] = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    # Set-ups are many: no sample hooks, and no waiting for the disk.
    "GIT_TEMPLATE_DIR": "",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "core.fsync",
    "GIT_CONFIG_VALUE_0": "none",
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
    cells: "WatchedCells"
    records: Records
    worktrees: Worktrees
    committer: Committer
    pusher: Pusher
    merger: Merger
    forks: Forks
    transport: "CountingTransport"
    local: Local
    foresight: Foresight

    async def create(
        self,
        source: Path | str,
        uid: str = UID,
        *,
        revision: str = "",
        branch: str = "work",
        max_staleness: float = 0,
        depth: int = 0,
        filter: str = "",  # noqa: A002
        caller: Caller = CALLER,
    ) -> Record:
        """A worktree of `source`."""
        wanted = Wanted(
            uid=uid,
            repository=f"file://{source}" if isinstance(source, Path) else source,
            revision=revision,
            branch=branch,
            max_staleness=max_staleness,
            depth=depth,
            filter=filter,
        )
        return await self.worktrees.create(wanted, caller)

    async def ready(self, uid: str = UID) -> tuple[Record, Workspace]:
        """The worktree with its workspace."""
        return await self.worktrees.ready(uid, CALLER.tenant)


class CountingTransport(Transport):
    """Counts how often each conversation was begun."""

    def __init__(
        self, cells: Cells, rules: Rules, bounds: Bounds, local: Local, authorities: bytes
    ) -> None:
        super().__init__(cells, rules, bounds, local, authorities)
        self.listings = 0
        self.fetches = 0

    async def listing(self, remote: Remote, credentials: Credentials) -> Listing:
        self.listings += 1
        return await super().listing(remote, credentials)

    async def fetch(
        self,
        remote: Remote,
        credentials: Credentials,
        store: Path,
        refspecs: Sequence[str],
        progress: Progress,
        more: Sequence[str] = (),
    ) -> str:
        self.fetches += 1
        return await super().fetch(remote, credentials, store, refspecs, progress, more)


class WatchedCells(Cells):
    """Tells when a command has just been started."""

    def __init__(self, homes: Sequence[Path], bwrap: Path | None = None) -> None:
        super().__init__(homes, bwrap)
        self._awaited: dict[str, asyncio.Future[Running]] = {}
        self.names: list[str] = []
        self.doomed = ""
        """A command of which the next run is killed before it gets any input."""
        self.stuck = ""
        """A command whose next run does not end before whoever waits for it is cancelled."""
        self._asked: dict[str, asyncio.Future[None]] = {}
        self.programs: dict[Path, Program] = {}

    async def next(self, name: str) -> Running:
        """The next run of the command `name`, as soon as there is one."""
        self._awaited[name] = asyncio.get_running_loop().create_future()
        return await asyncio.wait_for(self._awaited[name], 30)

    async def asked(self, name: str) -> None:
        """Wait until the operation `name` is asked for."""
        self._asked[name] = asyncio.get_running_loop().create_future()
        await asyncio.wait_for(self._asked[name], 30)

    async def call(
        self,
        cell: Cell,
        name: str,
        payload: Payload,
        descriptors: Sequence[int] = (),
        *,
        timeout: float,
        limit: int = 64 << 20,
    ) -> tuple[Payload, list[int]]:
        if (asked := self._asked.pop(name, None)) is not None:
            asked.set_result(None)
        return await super().call(cell, name, payload, descriptors, timeout=timeout, limit=limit)

    @asynccontextmanager
    async def started(
        self,
        cell: Cell,
        command: Command,
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        descriptors: Sequence[int] = (),
    ) -> AsyncIterator[Running]:
        self.names.append(command.name)
        async with super().started(
            cell, command, stdin=stdin, stdout=stdout, descriptors=descriptors
        ) as running:
            if (awaited := self._awaited.pop(command.name, None)) is not None:
                awaited.set_result(running)
            if command.name == self.doomed:
                self.doomed = ""
                running.kill()
            if command.name == self.stuck:
                self.stuck = ""
                await asyncio.Event().wait()
            yield running


@asynccontextmanager
async def parts(
    state: Path,
    rules: Rules,
    *,
    repository_bytes: int = 1 << 30,
    bwrap: Path | None = None,
    authorities: bytes = b"",
    disk_used: float = 0.5,
    mode: Mode | None = None,
    most_commits: int = MAX_COMMITS,
) -> AsyncIterator[Parts]:
    """The service's parts over `state`, as app.py makes them."""
    directory = state / "git"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    state.chmod(0o700)
    homes = [directory / name for name in HOMES]
    cells = WatchedCells(homes, bwrap)
    bounds = Bounds(timeout=60, repository_bytes=repository_bytes)
    local = Local(cells, rules, state)
    transport = CountingTransport(cells, rules, bounds, local, authorities)
    repositories = Repositories(homes[0], cells)
    origins = Origins(cells, transport, access_ttl=300)
    disk = DiskGuard(directory, 0.9, measure=lambda _: disk_used)
    records = Records(homes[1])
    checkouts = Checkouts(homes[2], cells, 1 << 30, partial(in_use, records, repositories))
    how = mode_of(directory) if mode is None else mode
    stacks = Stacks(homes[3], records, cells)
    worktrees = Worktrees(
        records,
        repositories,
        origins,
        checkouts,
        stacks,
        Layout(records, repositories, checkouts, homes[3], cells),
        how,
        cells,
        rules,
        local,
        disk,
        most_commits=most_commits,
    )
    await worktrees.load()
    committer, pusher = Committer(records, SERVER, disk), Pusher(rules, transport)
    async with cells:
        forks = Forks(worktrees, stacks, cells, disk)
        merging = Merging(cells)
        yield Parts(
            state,
            cells,
            records,
            worktrees,
            committer,
            pusher,
            Merger(Targets(rules, repositories, origins, pusher), merging, SERVER, disk),
            forks,
            transport,
            local,
            Foresight(worktrees, Collisions(merging), disk),
        )
        await checkouts.close()
        for program in cells.programs.values():
            program.close()


@pytest.fixture(params=[None, Mode.PLAIN], ids=["overlay", "plain"])
def both_modes(request: pytest.FixtureRequest) -> Mode | None:
    """For a module whose tests hold for every kind of worktree: `mode = both_modes`."""
    mode: Mode | None = request.param
    return mode


@pytest.fixture(
    params=[None, pytest.param(Mode.PLAIN, marks=pytest.mark.long)], ids=["overlay", "plain"]
)
def each_mode(request: pytest.FixtureRequest) -> Mode | None:
    """As `both_modes`, for what has less to do with the kind: plain ones in `make test-long`."""
    mode: Mode | None = request.param
    return mode


def inside(workspace: Workspace) -> Program:
    """The program in a worktree's sandbox; it is there until the parts are closed."""
    assert isinstance(workspace.cells, WatchedCells)
    programs, key = workspace.cells.programs, workspace.paths.directory
    if key not in programs:
        programs[key] = Program.of(workspace)
    return programs[key]


def leave(workspace: Workspace) -> None:
    """End the program in a worktree's sandbox, if there is one."""
    assert isinstance(workspace.cells, WatchedCells)
    program = workspace.cells.programs.pop(workspace.paths.directory, None)
    if program is not None:
        program.close()


def tree_of(workspace: Workspace) -> Path:
    """The worktree as the program in its sandbox sees it."""
    return inside(workspace).tree


def write(workspace: Workspace, name: str | bytes, content: str | bytes) -> Path:
    """Write a file into a worktree, as the program in its sandbox would."""
    path = tree_of(workspace) / os.fsdecode(name)
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
