"""Keeps repositories small and quick, while sandboxes and cells go on reading them.

Where a worktree stands on a repository, no object ever goes: loose ones and small packs become
larger packs, also those that nothing names, as a sandbox may have them as alternates and its
own objects may need them. A reader that has an old pack open keeps it; one that misses an
object looks for new packs, as git does. Only where no worktree stands on a repository, what
nothing names for long is dropped, and whoever comes for the repository breaks that off.

All of it is done by git, in a cell, one repository after the other, with low priority. Killed
at any point it leaves a whole repository, and files that the next writer removes.
"""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

from servicekit.disk import DiskGuard
from servicekit.errors import ServiceError
from services.git import files
from services.git.command import Command, Where, git
from services.git.errors import GitFailed, failed
from services.git.local import MEMORY
from services.git.records import Records
from services.git.repositories import Repositories
from services.git.repository import Repository
from services.git.transport import STORE

_TIMEOUT: Final = 3600
_SAMPLED: Final = ("17", "42", "9a", "e3")
"""Directories of loose objects, of 256 that are alike."""
_PRUNED: Final = "cove-pruned"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a repository may have before something is done about it."""

    loose: int = 2000
    packs: int = 20
    refs: int = 200
    """Loose ones, of worktrees."""
    age: int = 14 * 86400
    """Seconds for which an object is kept that nothing names, once no worktree is left."""
    interval: float = 600
    """Seconds between two looks at all repositories."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a repository has, of objects about."""

    loose: int
    packs: int
    refs: int


class Maintenance:
    def __init__(
        self,
        records: Records,
        repositories: Repositories,
        disk: DiskGuard,
        limits: Limits | None = None,
    ) -> None:
        self._records = records
        self._repositories = repositories
        self._disk = disk
        self._limits = limits or Limits()

    async def run(self) -> None:
        """Look at all repositories from time to time, until cancelled."""
        while True:
            await asyncio.sleep(self._limits.interval)
            await self.look()

    async def look(self) -> None:
        """Do what is needed to all repositories, one after the other."""
        for repository in await self._repositories.all():
            work: asyncio.Task[None] | None = None
            try:
                async with repository.lock:
                    if not (repository.path / "HEAD").exists():
                        continue
                    work = asyncio.create_task(self._keep(repository))
                    repository.upkeep = work
                await asyncio.wait([work])
                if not work.cancelled():
                    work.result()
            except (ServiceError, GitFailed, OSError) as error:
                _log.warning("a repository is left as it is: %s", error)
            finally:
                if work is not None:
                    work.cancel()
                    await asyncio.wait([work])
                    repository.upkeep = None

    async def _keep(self, repository: Repository) -> None:
        found = await asyncio.to_thread(measure, repository.path)
        limits = self._limits
        if found.refs > limits.refs:
            await self._do(repository, [git(Where(git_dir=STORE), "pack-refs")])
        part = repository.partial
        if part is not None and part.filter:
            return  # Its packs say that contents are lacking for a reason; they stay apart.
        if found.loose > limits.loose or found.packs > limits.packs:
            self._disk.check()
            await self._do(repository, _consolidating())
        if not self._is_used(repository) and self._repositories.is_filled(repository):
            await self._prune(repository)

    async def _prune(self, repository: Repository) -> None:
        """Drop what nothing names for long, unless nothing has changed since that was done."""
        async with repository.lock:
            repository.gives_way = True
            try:
                await self._drop(repository)
            finally:
                repository.gives_way = False

    async def _drop(self, repository: Repository) -> None:
        marker = repository.path / _PRUNED
        state = await asyncio.to_thread(_state_of, repository.path)
        if self._is_used(repository) or _text(marker) == state:
            return
        self._disk.check()
        repository.forget()
        # It names commits that may go.
        await asyncio.to_thread(_drop_graph, repository.path)
        await self._do(repository, _pruning(self._limits.age))
        # A git that runs there has packs open that are gone, and would say that all is there.
        await repository.cells.drop(repository.path)
        state = await asyncio.to_thread(_state_of, repository.path)
        await asyncio.to_thread(files.write, marker, state.encode(), durable=False)

    def _is_used(self, repository: Repository) -> bool:
        users = self._records.repositories()
        return any(self._repositories.find(*name) is repository for name in users)

    async def _do(self, repository: Repository, commands: Iterable[Command]) -> None:
        cell = replace(repository.cell(writable=True), memory=MEMORY)
        for command in commands:
            low = replace(command, argv=("nice", "-n", "19", *command.argv))
            # While somebody writes, nobody takes what is half-written for leftovers.
            with repository.writing():
                result = await repository.cells.run(cell, low, timeout=_TIMEOUT)
            if result.code != 0:
                repository.doubt()
                raise failed(command.name, result.code, result.errors)


def measure(path: Path) -> Measured:
    """How much of what there is in the repository at `path`."""
    loose = sum(_count(path / "objects" / name) for name in _SAMPLED) * 256 // len(_SAMPLED)
    packs = sum(name.endswith(".pack") for name in _names(path / "objects" / "pack"))
    return Measured(loose, packs, _count(path / "refs" / "cove"))


def _consolidating() -> list[Command]:
    where = Where(git_dir=STORE)
    return [
        # Rolls small packs and all loose objects up; what nothing names is among them.
        git(where, "repack", ["--geometric=2"], config=[("repack.writeBitmaps", "false")]),
        git(where, "commit-graph write"),
    ]


def _pruning(age: int) -> list[Command]:
    where, since = Where(git_dir=STORE), f"{age}.seconds.ago"
    config = [("repack.writeBitmaps", "false")]
    return [
        git(where, "repack", ["-a", f"--unpack-unreachable={since}"], config=config),
        git(where, "prune", [f"--expire={since}"]),
        git(where, "commit-graph write"),
    ]


def _drop_graph(path: Path) -> None:
    with suppress(FileNotFoundError):
        (path / "objects" / "info" / "commit-graph").unlink()


def _state_of(path: Path) -> str:
    """Changes with the packs, the refs, and the loose objects, as far as these are many."""
    found = measure(path)
    packs = sorted(_names(path / "objects" / "pack"))
    with suppress(FileNotFoundError):
        packs.append(str((path / "packed-refs").stat().st_mtime_ns))
    text = "\n".join([str(found.loose), *packs])
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except FileNotFoundError:
        return ""


def _names(path: Path) -> list[str]:
    try:
        return [entry.name for entry in path.iterdir()]
    except FileNotFoundError:
        return []


def _count(path: Path) -> int:
    return len(_names(path))
