"""Commits of a worktree on another node: sent there, checked and kept there, released.

What comes is spooled first, so that a sender that is slow or gone holds nothing up, and is then
checked as a remote's would be: each object, and that nothing is missing behind the commit. Only
then a ref names it, and before that whatever came is as if it had not.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from tempfile import TemporaryFile
from typing import Final

from servicekit.disk import DiskGuard
from servicekit.errors import ServiceError
from services.git import partial, refs
from services.git.beside import beside
from services.git.cell import Cells, timed_out_as
from services.git.command import Where, git
from services.git.credentials import Credentials
from services.git.errors import (
    CommitsInvalid,
    CommitsMissing,
    RepositoryNotFound,
    RepositoryTooLarge,
    RevisionNotFound,
    WorktreeExists,
    failed,
)
from services.git.kept import Kept
from services.git.local import MEMORY
from services.git.origins import Caller
from services.git.remote import Remote, Rules
from services.git.repository import Repository, kept_ref
from services.git.transport import STORE, size_of
from services.git.wanted import Wanted, key_of
from services.git.worktrees import Worktrees

_TIMEOUT: Final = 540.0
_ERRORS: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Commits to be sent. `prerequisites` the other side must have."""

    repository: Repository
    commit: str
    prerequisites: Sequence[str]


class Replicas:
    """`most` is how many bytes a repository may have. One process owns what is kept."""

    def __init__(
        self,
        worktrees: Worktrees,
        cells: Cells,
        rules: Rules,
        disk: DiskGuard,
        most: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._worktrees = worktrees
        self._repositories = worktrees.repositories
        self._origins = worktrees.origins
        self.kept = worktrees.records.kept
        self._cells = cells
        self._rules = rules
        self._disk = disk
        self._most = most
        self._clock = clock

    async def export(self, uid: str, tenant: str, commit: str, have: Sequence[str]) -> Export:
        """What is to be sent of a worktree, up to `commit`, or its head, beyond what they `have`.

        Raises `RevisionNotFound`, `CommitsMissing`, `WorktreeNotFound`.
        """
        _, workspace = await self._worktrees.ready(uid, tenant)
        repository, head = workspace.repository, workspace.head
        commit = commit or head
        if not head or (commit != head and not await repository.is_ancestor(commit, head)):
            raise RevisionNotFound("the branch has no such commit", revision=commit or "HEAD")
        known = [one for one in dict.fromkeys(have) if await repository.has(one)]
        if repository.partial is not None and not known:
            raise CommitsMissing("the repository holds a part of its origin only", commit=commit)
        return Export(repository=repository, commit=commit, prerequisites=known)

    async def pack(self, export: Export) -> AsyncGenerator[bytes, None]:
        """The objects, in pieces; nothing where they have the commit."""
        if export.commit in export.prerequisites:
            return
        cell = replace(export.repository.cell(), memory=MEMORY)
        command = git(Where(git_dir=STORE), "pack-objects")
        lines = [export.commit, *(f"^{one}" for one in export.prerequisites), ""]
        with timed_out_as(command.name):
            async with (
                asyncio.timeout(_TIMEOUT),
                self._cells.started(cell, command) as running,
                beside(running.feed("\n".join(lines).encode())),
            ):
                async for piece in running.output():
                    yield piece
                code = await running.wait()
        if code != 0:
            raise failed(command.name, code, running.errors)

    def commit(self, kept: Kept) -> str:
        """The commit that is kept; empty: none yet."""
        repository = self._repositories.find(kept.tenant, kept.key)
        return refs.find(repository.path, kept_ref(kept.uid))

    async def keep(
        self,
        wanted: Wanted,
        tenant: str,
        commit: str,
        prerequisites: Sequence[str],
        pieces: AsyncIterator[bytes],
    ) -> str:
        """Take in a pack, and keep `commit`; which one is kept then.

        Raises `CommitsMissing`, `CommitsInvalid`, `RepositoryTooLarge`, `WorktreeExists`, and what
        `pieces` raises. When it fails nothing is kept that was not before.
        """
        await self._cells.require()
        self._disk.check()
        remote = self._origin(wanted)
        async with self._worktrees.locked(wanted.uid):
            found = self._claimed(wanted, tenant)
            kept = found or Kept(
                uid=wanted.uid,
                tenant=tenant,
                asked=wanted.repository,
                repository=remote.url if remote else wanted.repository,
                key=key_of(wanted, remote),
                create_time=self._clock(),
            )
            if found is None:
                await self.kept.keep(kept)
            try:
                return await self._keep(kept, wanted, remote, commit, prerequisites, pieces)
            finally:
                if not self.commit(kept):
                    await asyncio.shield(self._release(kept))

    async def release(self, uid: str, tenant: str) -> bool:
        """Keep nothing of it any more; whether anything was kept."""
        async with self._worktrees.locked(uid):
            kept = self.kept.find(uid)
            if kept is None or tenant not in ("", kept.tenant):
                return False
            await self._release(kept)
            return True

    def _origin(self, wanted: Wanted) -> Remote | None:
        """None where there is none, or none any more: then all has to come."""
        try:
            return self._rules.parse(wanted.repository) if wanted.repository else None
        except RepositoryNotFound:
            return None

    def _claimed(self, wanted: Wanted, tenant: str) -> Kept | None:
        """What is kept of the uid already. Raises `WorktreeExists` if that is another's."""
        found, record = self.kept.find(wanted.uid), self._worktrees.records.find(wanted.uid)
        for other in (found, record):
            if other and (other.tenant, other.asked) != (tenant, wanted.repository):
                raise WorktreeExists("the uid has a worktree of other input", uid=wanted.uid)
        return found

    async def _keep(
        self,
        kept: Kept,
        wanted: Wanted,
        remote: Remote | None,
        commit: str,
        prerequisites: Sequence[str],
        pieces: AsyncIterator[bytes],
    ) -> str:
        repository = self._repositories.find(kept.tenant, kept.key)
        async with self._repositories.locked(repository):
            part = partial.wanted(wanted.depth, wanted.filter, wanted.revision)
            await self._repositories.make(repository, part if remote else None)
            former = self.commit(kept)
            if former and await repository.is_ancestor(commit, former):
                return former
            for one in prerequisites:
                if not await repository.has(one):
                    await self._fetch(repository, remote, kept.tenant, one)
        async with (
            self._spooled(repository, pieces) as (pack, size),
            self._repositories.locked(repository),
        ):
            if size:
                await self._index(repository, commit, pack)
            await self._check(repository, commit)
            with repository.writing():
                if not await repository.move(kept_ref(kept.uid), self.commit(kept), commit):
                    raise OSError("the ref of kept commits cannot be written")
        return commit

    async def _fetch(
        self, repository: Repository, remote: Remote | None, tenant: str, commit: str
    ) -> None:
        """Have a commit from the origin, where that gives it to anybody."""
        missing = CommitsMissing("a commit is needed that is not here", commit=commit)
        if remote is None:
            raise missing
        caller = Caller(tenant=tenant, principal="", credentials=Credentials())

        def progress(*_: object) -> None:
            """Nobody looks."""

        try:
            await self._origins.resolve(
                repository, remote, commit, caller, max_staleness=0, progress=progress
            )
            await self._origins.complete(repository, remote, commit, caller, progress)
        except RepositoryTooLarge:
            raise
        except ServiceError as error:
            missing.metadata["cause"] = str(error)
            raise missing from error

    @asynccontextmanager
    async def _spooled(
        self, repository: Repository, pieces: AsyncIterator[bytes]
    ) -> AsyncIterator[tuple[int, int]]:
        """A descriptor of a file with the `pieces`, at its beginning, and how long it is."""
        room = self._most - size_of(repository.path)
        with TemporaryFile(dir=self.kept.root) as file:
            size = 0
            async for piece in pieces:
                size += len(piece)
                if size > room:
                    raise RepositoryTooLarge("the repository is too large", limit=str(self._most))
                await asyncio.to_thread(file.write, piece)
            await asyncio.to_thread(file.seek, 0)
            yield file.fileno(), size

    async def _index(self, repository: Repository, commit: str, pack: int) -> None:
        command = git(Where(git_dir=STORE), "index-pack", [f"--max-input-size={self._most}"])
        cell = replace(repository.cell(writable=True), memory=MEMORY)
        with repository.writing(), timed_out_as(command.name):
            async with (
                asyncio.timeout(_TIMEOUT),
                self._cells.started(cell, command, stdin=pack) as running,
            ):
                done = await running.finish(limit=1 << 20)
        if done.code != 0:
            repository.doubt()
            raise _invalid("git does not take the commits", commit, done.errors)

    async def _check(self, repository: Repository, commit: str) -> None:
        """That it is a commit, and nothing is missing behind it that no ref has here."""
        if not await repository.has(commit):
            raise _invalid("the pack does not hold the commit", commit)
        options = ["--objects", "--quiet", "--not", "--all", "--not"]
        walk = git(Where(git_dir=STORE), "rev-list", options, values=[commit])
        done = await self._cells.run(repository.cell(), walk, timeout=_TIMEOUT)
        if done.code != 0:
            repository.forget()
            raise _invalid("something is missing behind the commit", commit, done.errors)

    async def _release(self, kept: Kept) -> None:
        repository = self._repositories.find(kept.tenant, kept.key)
        async with self._repositories.locked(repository):
            if last := self.commit(kept):
                with repository.writing():
                    if not await repository.move(kept_ref(kept.uid), last, ""):
                        raise OSError("the ref of kept commits cannot be removed")
            self.kept.drop(kept.uid)
            await self._worktrees.tidy(repository, kept.tenant, kept.key, kept.repository)


def _invalid(problem: str, commit: str, cause: str = "") -> CommitsInvalid:
    return CommitsInvalid("data", problem, commit=commit, cause=cause.strip()[-_ERRORS:])
