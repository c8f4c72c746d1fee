"""Makes worktrees: has the commit here, lays out the files, puts the ref in place."""

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final

from servicekit.aside import aside
from servicekit.queueing import PROCESSORS, Queue
from services.git import partial, refs
from services.git.beside import beside
from services.git.checkouts import Checkouts
from services.git.command import is_commit_id
from services.git.kept import Kept
from services.git.layout import Layout
from services.git.local import Local
from services.git.origins import Caller, Origins, Resolved
from services.git.record import Mode, Record, State
from services.git.records import Records
from services.git.remote import Remote, Scheme
from services.git.repositories import Repositories
from services.git.repository import kept_ref
from services.git.wanted import WARNINGS, Wanted

_MAKINGS: Final = 4 * PROCESSORS
"""Worktrees that are made at once; most of it is waiting for remotes."""
_WAITING: Final = 512
_LONGEST: Final = 2.0
"""Seconds. Who waits for longer, for a remote or for the same repository, goes on beside others."""


@dataclass(frozen=True, slots=True)
class Phase:
    """What is going on while a worktree is made; `total` is 0 while unknown."""

    name: str
    done: int
    total: int


class Maker:
    """Makes the worktrees of this node."""

    def __init__(
        self,
        records: Records,
        repositories: Repositories,
        origins: Origins,
        checkouts: Checkouts,
        layout: Layout,
        mode: Mode,
        local: Local,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`mode` is how they are made, unless they are to be plain."""
        self._records = records
        self._repositories = repositories
        self._origins = origins
        self._checkouts = checkouts
        self._layout = layout
        self._mode = mode
        self._local = local
        self._clock = clock
        self._phases: dict[str, Phase] = {}
        self._makings = Queue("worktrees", _MAKINGS, _WAITING, longest=_LONGEST)

    def phase(self, uid: str) -> Phase:
        """How far a worktree is that is being made."""
        return self._phases.get(uid, Phase("", 0, 0))

    def ended(self, uid: str) -> None:
        """It is made, or is not going to be."""
        self._phases.pop(uid, None)

    async def finish(
        self,
        record: Record,
        remote: Remote | None,
        caller: Caller,
        max_staleness: float,
        kept: Kept | None,
    ) -> Record:
        repository = self._repositories.find(record.tenant, record.key)

        def progress(name: str, done: int, total: int) -> None:
            self._phases[record.uid] = Phase(name, done, total)

        progress("waiting for the repository", 0, 0)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._makings.place())
            # Who names a commit means no state of files.
            asked = None if is_commit_id(record.revision) else remote
            dirty = await stack.enter_async_context(beside(self._is_dirty(asked)))
            async with self._repositories.locked(repository):
                part = partial.wanted(record.depth, record.filter, record.revision)
                await self._repositories.make(repository, part if remote else None)
                commit = record.revision if kept else ""
                resolved = Resolved(commit=commit, time=self._clock())
                if remote is not None:
                    progress("asking the remote", 0, 0)
                    resolved = await self._origins.resolve(
                        repository,
                        remote,
                        record.revision,
                        caller,
                        max_staleness=max_staleness,
                        progress=progress,
                    )
                    await self._origins.complete(
                        repository, remote, resolved.commit, caller, progress
                    )
                progress("checking out", 0, 0)
                mode = Mode.PLAIN if record.plain else self._mode
                made = replace(record, mode=mode, checkout=resolved.commit)
                # Until the record names it, nothing else keeps it from being removed.
                stack.enter_context(self._checkouts.held(repository, resolved.commit))
                laying = await stack.enter_async_context(
                    beside(self._layout.lay_out(made, repository, resolved.commit))
                )
                if resolved.commit:
                    # With the ref in place nothing that the worktree needs can be pruned.
                    known = self._checkouts.find(repository, resolved.commit) is not None
                    await repository.point(record.uid, resolved.commit, known=known)
            await laying
            part = repository.partial
            warnings = (*WARNINGS[await dirty], *(part.warnings if part else ()))
            ready = replace(
                made,
                state=State.READY,
                base_commit=resolved.commit,
                inside=resolved.commit,
                base_branch=resolved.branch,
                resolved_time=resolved.time,
                warnings=warnings,
            )
            # Lost to a power loss it would be made again: one sync, of both, is enough.
            await self._records.keep(ready, durable=False)
            await aside(self._records.sync, record.uid, new=True)
            return ready

    async def kept(self, wanted: Wanted, tenant: str) -> Kept | None:
        """What is kept of it, if what is wanted is among that: nobody need be asked for it."""
        kept, commit = self._records.kept.find(wanted.uid), wanted.revision
        if kept is None or not is_commit_id(commit):
            return None
        if (kept.tenant, kept.asked) != (tenant, wanted.repository):
            return None
        repository = self._repositories.find(kept.tenant, kept.key)
        last = refs.find(repository.path, kept_ref(kept.uid))
        if not last:
            return None
        return kept if last == commit or await repository.is_ancestor(commit, last) else None

    async def _is_dirty(self, remote: Remote | None) -> bool | None:
        """Whether there is uncommitted work in a repository of this machine: it is not taken."""
        if remote is None or remote.scheme is not Scheme.FILE:
            return False
        return await self._local.is_dirty(remote)
