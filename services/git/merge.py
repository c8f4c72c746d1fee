"""Lands a branch of a workspace on another: computed in the repository alone, then pushed."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final
from weakref import WeakValueDictionary

from servicekit.disk import DiskGuard
from services.git import history, landed, replay, revisions
from services.git.command import is_commit_id
from services.git.conflicts import Conflict, Merged
from services.git.draft import Draft, Person, message_text, people
from services.git.errors import HeadMoved, MergeConflict, NonFastForward, WorktreeNotFound
from services.git.landed import Landing
from services.git.mergetree import Merging, Relation
from services.git.origins import Caller
from services.git.record import Record
from services.git.repository import Repository
from services.git.targets import Target, Targets, name_of
from services.git.workspace import Workspace

_TOLD_BYTES: Final = 2000  # Of conflicts in a failure; PreviewMerge has all.


class Strategy(Enum):
    """How commits of the source come to be on the target."""

    MERGE = auto()
    SQUASH = auto()
    REBASE = auto()
    FAST_FORWARD = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to merge into what. Empty: the worktree's own branch, and the one it was made from."""

    source: str = ""
    target: str = ""
    strategy: Strategy = Strategy.MERGE
    expected_head: str = ""
    """Only if the target is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a merge would do.

    `merged` holds what is in the way; `tip` is a commit that there is already, and would be
    the head; `stopped_at` the one that could not be repeated.
    """

    target: Target
    source: str
    relation: Relation
    merged: Merged
    fits: bool
    """Whether it would succeed."""
    unchanged: bool
    tip: str = ""
    stopped_at: str = ""
    changed_files: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The target's head now, and before; `unchanged`: it had everything."""

    url: str
    target: str
    commit: history.Commit
    previous: str
    unchanged: bool = False


class Merger:
    def __init__(
        self,
        targets: Targets,
        merging: Merging,
        server: Person,
        disk: DiskGuard,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._targets = targets
        self._merging = merging
        self._server = server
        self._disk = disk
        self._clock = clock
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def preview(
        self, record: Record, workspace: Workspace, asked: Asked, caller: Caller | None
    ) -> Preview:
        """What `merge` would do; with a caller, the origin is asked first.

        Raises what `merge` does, but for conflicts.
        """
        name = name_of(record, asked.target)
        await self._merging.require()
        self._disk.check()
        repository = workspace.repository
        if caller is None:
            target = await self._targets.known(record, repository, name)
        else:
            target = await self._targets.fresh(record, workspace, name, caller)
        source = await revisions.find(record, workspace, asked.source)
        with repository.writing():
            found = await self._compute(repository, target, source, asked)
            if not found.fits or found.unchanged or not target.head:
                return found
            old, new = f"{target.head}^{{tree}}", found.merged.tree
            changed = await self._merging.changed_files(repository, old, new)
        return replace(found, changed_files=changed)

    async def merge(
        self, record: Record, workspace: Workspace, asked: Asked, draft: Draft, caller: Caller
    ) -> Done:
        """Land the source. Merges into one target that are made here wait for each other.

        Raises `MergeConflict`, `NonFastForward`, `HeadMoved`, `UnrelatedHistories`,
        `NotLinear`, `GitTooOld`, `RevisionNotFound`, and what a push is refused with.
        """
        name = name_of(record, asked.target)
        await self._merging.require()
        repository = workspace.repository
        async with self._lock(repository, name):
            self._disk.check()
            target = await self._targets.fresh(record, workspace, name, caller)
            if (again := await self._again(record, workspace, target, draft)) is not None:
                return again
            if asked.expected_head and asked.expected_head != target.head:
                raise HeadMoved(
                    "the target has moved",
                    expected=asked.expected_head,
                    actual=target.head,
                    branch=name,
                )
            source = await revisions.find(record, workspace, asked.source)
            with repository.writing():
                found = await self._compute(repository, target, source, asked)
                if found.unchanged:
                    return await self._done(record, repository, target, target.head)
                _check(found, asked.strategy)
                commit = found.tip or await self._commit(repository, found, asked, draft, record)
            landing = Landing(
                request=draft.request_id, target=name, previous=target.head, commit=commit
            )
            try:
                await asyncio.to_thread(landed.note, workspace.paths.directory, landing)
            except FileNotFoundError:
                raise WorktreeNotFound("the worktree was removed", uid=record.uid) from None
            await self._targets.move(record, workspace, target, commit, caller)
            return await self._done(record, repository, target, commit)

    async def _compute(
        self, repository: Repository, target: Target, source: str, asked: Asked
    ) -> Preview:
        if not target.head:
            return await self._begin(repository, target, source)
        relation = await self._merging.relate(repository, target.head, source)
        found = Preview(
            target=target,
            source=source,
            relation=relation,
            merged=Merged(tree=""),
            fits=True,
            unchanged=relation.ahead == 0,
        )
        if found.unchanged:
            return replace(
                found, tip=target.head, merged=await self._as_it_is(repository, target.head)
            )
        if asked.strategy is Strategy.FAST_FORWARD:
            merged = await self._as_it_is(repository, source)
            return replace(found, tip=source, merged=merged, fits=relation.behind == 0)
        names = {target.head: target.name, source: asked.source or "the source"}
        if asked.strategy is Strategy.REBASE:
            return await self._replay(repository, found, names)
        merged = await self._merging.merge(repository, target.head, source, names)
        same = asked.strategy is Strategy.SQUASH and not merged.total
        unchanged = same and merged.tree == (await self._as_it_is(repository, target.head)).tree
        return replace(found, merged=merged, fits=not merged.total, unchanged=unchanged)

    async def _begin(self, repository: Repository, target: Target, source: str) -> Preview:
        """A branch that is not there yet begins at the source, whatever the strategy."""
        relation = Relation(base="", ahead=await self._merging.count(repository, source), behind=0)
        return Preview(
            target=target,
            source=source,
            relation=relation,
            merged=await self._as_it_is(repository, source),
            fits=True,
            unchanged=False,
            tip=source,
        )

    async def _replay(
        self, repository: Repository, found: Preview, names: Mapping[str, str]
    ) -> Preview:
        server = self._server
        committer = f"{server.name} <{server.email}> {int(self._clock())} +0000".encode()
        made = await replay.replay(repository, found.target.head, found.source, committer, names)
        return replace(
            found,
            merged=made.conflicts or Merged(tree=made.tree),
            fits=made.conflicts is None,
            unchanged=made.tip == found.target.head and made.conflicts is None,
            tip=made.tip,
            stopped_at=made.stopped_at,
        )

    async def _as_it_is(self, repository: Repository, commit: str) -> Merged:
        [found] = await history.commits(repository, commit, count=1)
        return Merged(tree=found.tree)

    async def _commit(
        self, repository: Repository, found: Preview, asked: Asked, draft: Draft, record: Record
    ) -> str:
        parents = [found.target.head]
        if asked.strategy is Strategy.MERGE:
            parents.append(found.source)
        what = "commit" if is_commit_id(asked.source) else "branch"
        source = asked.source.removeprefix("refs/heads/") or record.branch
        default = f"Merge {what} '{source}' into {found.target.name}"
        message = message_text(replace(draft, message=draft.message.strip() or default))
        variables = people(draft.author, self._server, self._clock())
        return await self._merging.commit(
            repository, found.merged.tree, parents, message, variables
        )

    async def _again(
        self, record: Record, workspace: Workspace, target: Target, draft: Draft
    ) -> Done | None:
        """What was answered, if the same request moved the target before."""
        landing = landed.recall(workspace.paths.directory, draft.request_id)
        if landing is None or not target.head or landing.target != target.name:
            return None
        repository = workspace.repository
        if not await self._merging.contains(repository, target.head, landing.commit):
            return None
        return await self._done(
            record, repository, replace(target, head=landing.previous), landing.commit
        )

    async def _done(
        self, record: Record, repository: Repository, target: Target, commit: str
    ) -> Done:
        [made] = await history.commits(repository, commit, count=1)
        return Done(
            url=record.repository,
            target=target.name,
            commit=made,
            previous=target.head,
            unchanged=commit == target.head,
        )

    def _lock(self, repository: Repository, target: str) -> asyncio.Lock:
        return self._locks.setdefault((str(repository.path), target), asyncio.Lock())


def _check(found: Preview, strategy: Strategy) -> None:
    """Raises `MergeConflict` and `NonFastForward`."""
    if found.fits:
        return
    target = found.target
    if strategy is Strategy.FAST_FORWARD:
        raise NonFastForward(
            "the target has commits that the source has not",
            branch=target.name,
            remedy="Merge, squash or rebase instead of only moving the target forward.",
        )
    raise MergeConflict(
        "source and target changed the same",
        target=target.name,
        target_commit=target.head,
        source_commit=found.stopped_at or found.source,
        total=str(found.merged.total),
        conflicts=json.dumps(_told(found.merged.conflicts), ensure_ascii=False),
    )


def _told(conflicts: Sequence[Conflict]) -> list[dict[str, str]]:
    """As many as go into the trailer of an answer."""
    told, left = [], _TOLD_BYTES
    for one in conflicts:
        told.append({"path": one.path.decode("utf-8", "replace"), "kind": one.kind.name})
        left -= len(json.dumps(told[-1], ensure_ascii=False).encode())
        if left < 0:
            return told[:-1]
    return told
