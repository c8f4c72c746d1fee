"""Makes and removes worktrees, and finds those there are."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

from servicekit.disk import DiskGuard
from services.git import files, history, inside, status
from services.git.cell import Cells
from services.git.checkouts import Checkouts
from services.git.errors import (
    NoRemote,
    TooOld,
    UnsavedWork,
    WorktreeExists,
    WorktreeNotFound,
    is_of_room,
)
from services.git.layout import Layout
from services.git.local import Local
from services.git.making import Maker, Phase
from services.git.names import check_branch
from services.git.origins import Caller, Origins
from services.git.record import VERSION, Mode, Record, State
from services.git.records import Records
from services.git.remote import Rules
from services.git.removal import Removal
from services.git.repositories import Repositories
from services.git.repository import Repository
from services.git.stacks import Stacks
from services.git.wanted import Wanted, begin, is_same
from services.git.workspace import Workspace


class Worktrees:
    """All worktrees of this node. One process owns them."""

    def __init__(
        self,
        records: Records,
        repositories: Repositories,
        origins: Origins,
        checkouts: Checkouts,
        stacks: Stacks,
        layout: Layout,
        mode: Mode,
        cells: Cells,
        rules: Rules,
        local: Local,
        disk: DiskGuard,
        clock: Callable[[], float] = time.time,
        most_commits: int = inside.MAX_COMMITS,
    ) -> None:
        """`most_commits` may be made inside between two looks at a worktree."""
        self.records = records
        self.repositories = repositories
        self.origins = origins
        self._checkouts = checkouts
        self._stacks = stacks
        self.layout = layout
        self._cells = cells
        self._rules = rules
        self._disk = disk
        self._clock = clock
        self._most_commits = most_commits
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._making: dict[str, asyncio.Task[Record]] = {}
        self._checking: dict[str, asyncio.Task[None]] = {}
        self._workspaces: dict[str, Workspace] = {}
        self._maker = Maker(records, repositories, origins, checkouts, layout, mode, local, clock)
        self._removal = Removal(records, repositories, checkouts, stacks, cells)

    def phase(self, uid: str) -> Phase:
        """How far a worktree is that is being made."""
        return self._maker.phase(uid)

    def repository_of(self, record: Record) -> Repository:
        """The repository that a worktree is of."""
        return self.repositories.find(record.tenant, record.key)

    def owned(self, uid: str, tenant: str) -> Record:
        """The record, if it is of `tenant`; the suite itself ("") sees all.

        Raises `WorktreeNotFound`, as if there were none.
        """
        record = self.records.get(uid)
        if tenant and record.tenant != tenant:
            raise WorktreeNotFound("no such worktree", uid=uid)
        return record

    async def ready(self, uid: str, tenant: str) -> tuple[Record, Workspace]:
        """A complete worktree. Raises `WorktreeNotFound`."""
        self.owned(uid, tenant)
        record = self.records.ready(uid)
        if record.version != VERSION:
            raise TooOld("the worktree was made by a version that kept it otherwise", uid=uid)
        await self._cells.require()
        workspace = self._workspaces.get(uid)
        if workspace is None:
            workspace = await self._workspace(record)
        async with workspace.lock:
            record = self.records.ready(uid)
            if record.freezing:
                record = await self._stacks.finish(record, workspace)
            record = await inside.take(self.records, record, workspace, self._most_commits)
        return record, workspace

    async def create(self, wanted: Wanted, caller: Caller) -> Record:
        """Make it, or finish or return what is there. When it fails nothing is left of it.

        Raises `WorktreeExists` and `BranchExists`, and what a remote's refusal makes.
        """
        check_branch(wanted.branch)
        async with self.locked(wanted.uid):
            found = self.records.find(wanted.uid)
            if found is not None and not is_same(found, wanted, caller):
                raise WorktreeExists("the uid has a worktree of other input", uid=wanted.uid)
            if found is not None and found.state is State.READY:
                return found
            found = await self.whole(found)
            await self._cells.require()
            self._disk.check()
            kept = await self._maker.kept(wanted, caller.tenant)
            asked = wanted.repository if kept is None else ""
            remote = self._rules.parse(asked) if asked else None
            record = begin(wanted, caller, remote, self._clock())
            if kept:
                record = replace(record, repository=kept.repository, key=kept.key)
            record = found or await self.records.keep(
                # Lost to a power loss, the directory without a record is removed at start.
                record,
                durable=False,
            )
            making = asyncio.create_task(
                self._maker.finish(record, remote, caller, wanted.max_staleness, kept)
            )
            self._making[wanted.uid] = making
            try:
                return await making
            except BaseException:
                await asyncio.shield(self.undo(record))
                if _is_removed(making):
                    raise WorktreeNotFound(
                        "the worktree was removed while it was made", uid=wanted.uid
                    ) from None
                raise
            finally:
                self._maker.ended(wanted.uid)
                self._making.pop(wanted.uid, None)

    async def whole(self, found: Record | None) -> Record | None:
        """What is to be finished; of one whose removal failed nothing is. Call it `locked`."""
        if found is None or found.state is not State.REMOVING:
            return found
        await self.undo(found)
        return None

    async def remove(self, uid: str, tenant: str, *, keep_unsaved: bool = False) -> bool:
        """Remove it with its branch, also while it is made; whether anything was there.

        Raises `UnsavedWork` when that is to be kept and there is some.
        """
        known = self.records.find(uid)
        known = known if known and tenant in ("", known.tenant) else None
        making = self._making.get(uid)
        was_made = known is not None and making is not None
        if was_made and making is not None:
            making.cancel()  # Nothing is left of it then, unless it has just come to its end.
        checking = self._checking.get(uid)
        if not keep_unsaved and checking is not None and known:
            checking.cancel()
        async with self.locked(uid):
            record = self.records.find(uid)
            if record is None or (tenant and record.tenant != tenant):
                return was_made
            if keep_unsaved and record.state is State.READY:
                await self._saved(record)
            await self.undo(await self.records.removing(record))
            return True

    async def fetch(self, uid: str, caller: Caller) -> float:
        """Bring its origin's branches up to date; when the origin was asked."""
        record, workspace = await self.ready(uid, caller.tenant)
        if not record.repository:
            raise NoRemote("the worktree has no origin")
        self._disk.check()
        repository = workspace.repository
        remote = self._rules.parse(record.repository)
        async with self.repositories.locked(repository):
            _, moment = await self.origins.freshen(repository, remote, caller, lambda *_: None)
        return moment

    async def load(self) -> None:
        """Read the records, and go on with what a former process began to remove."""
        self.layout.load()
        for stray in self.records.load():
            await files.remove_tree(stray)
        self.repositories.load()
        await self._stacks.load()
        await self._checkouts.load()
        for record in list(self.records):
            if record.state is State.REMOVING:
                async with self.locked(record.uid):
                    await self.undo(record)

    async def _saved(self, record: Record) -> None:
        """As `_check_saved`, until a removal that does not ask for it."""
        checking = asyncio.create_task(self._check_saved(record))
        self._checking[record.uid] = checking
        try:
            await checking
        except asyncio.CancelledError:
            if _is_removed(checking):
                raise WorktreeNotFound("the worktree was removed", uid=record.uid) from None
            raise
        finally:
            checking.cancel()
            self._checking.pop(record.uid, None)

    async def _check_saved(self, record: Record) -> None:
        try:
            unsaved = await self._has_unsaved(record)
        except Exception as error:
            if not is_of_room(error):
                raise
            unsaved = True  # As far as can be seen on a full disk.
        if unsaved:
            raise UnsavedWork("the worktree has work that is nowhere else", uid=record.uid)

    async def _has_unsaved(self, record: Record) -> bool:
        _, workspace = await self.ready(record.uid, record.tenant)
        async with workspace.lock:
            if workspace.astray is not None:
                return True  # Commits made inside, which are nowhere but there.
            head = workspace.head
            changed = (await status.read(workspace, head, limit=0)).total > 0
            return changed or await history.is_only_here(workspace)

    async def undo(self, record: Record) -> None:
        """Remove everything of a worktree, and its repository if nobody else can use it."""
        self._workspaces.pop(record.uid, None)
        await self._removal.run(record)

    async def tidy(self, repository: Repository, tenant: str, key: str, origin: str) -> None:
        """Remove a repository that nobody can use any more. Call it locked."""
        await self._removal.tidy(repository, tenant, key, origin)

    async def _workspace(self, record: Record) -> Workspace:
        made = await self.layout.workspace(record)
        self.records.ready(record.uid)  # It may have been removed meanwhile.
        workspace = self._workspaces.setdefault(record.uid, made)
        if workspace is made:
            # Nobody looks at it yet: what is there is of a service that was killed.
            shutil.rmtree(made.paths.scratch, ignore_errors=True)
        return workspace

    @asynccontextmanager
    async def locked(self, uid: str) -> AsyncIterator[None]:
        """While the worktree is made or removed."""
        lock = self._locks.setdefault(uid, asyncio.Lock())
        async with lock:
            yield


def _is_removed(making: asyncio.Task[Any]) -> bool:
    """Whether the task was stopped by a removal, and not together with its own caller."""
    current = asyncio.current_task()
    return making.cancelled() and not (current and current.cancelling())
