"""Commits what is in a worktree, from outside of its sandbox.

The cell that sees the files plans the tree; the commit is written here. What is new goes, checked,
into the repository, in a cell that sees no file of a worktree; then the branch moves.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from servicekit.disk import DiskGuard
from servicekit.queueing import PROCESSORS, Queue
from services.git import changes, history, inside, landing
from services.git.beside import beside
from services.git.changes import ATTEMPTS, UNSTABLE, Planned, Skipped
from services.git.draft import Draft, Made, Person, write
from services.git.errors import HeadMoved, NothingToCommit, failed
from services.git.landing import Refused
from services.git.provenance import Notary
from services.git.record import Record
from services.git.records import Records
from services.git.workspace import Workspace

_COMMITS: Final = 2 * PROCESSORS
_WAITING: Final = 512
_REFUSALS: Final = 20
"""Contents that git refuses, until a commit is given up."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The new head, and what it leaves out."""

    commit: str
    skipped: Sequence[Skipped]
    made: history.Commit


class Committer:
    def __init__(
        self,
        records: Records,
        server: Person,
        disk: DiskGuard,
        clock: Callable[[], float] = time.time,
        notary: Notary | None = None,
    ) -> None:
        self._notary = notary
        self._records = records
        self._disk = disk
        self._server = server
        self._clock = clock
        self._commits = Queue("commits", _COMMITS, _WAITING)

    async def commit(self, record: Record, workspace: Workspace, draft: Draft) -> Committed:
        """Make it. The same request id again returns the same commit.

        Raises `HeadMoved`, `NothingToCommit` and `Diverged`.
        """
        async with workspace.lock:
            record = self._records.ready(record.uid)
            head = workspace.head
            if draft.request_id and (draft.request_id, head) == (
                record.last_request,
                record.last_commit,
            ):
                return await self._attested(workspace, await _again(record, workspace), draft)
            self._disk.check()
            if draft.expected_head and draft.expected_head != head:
                raise HeadMoved("the branch has moved", expected=draft.expected_head, actual=head)
            inside.check_followed(workspace)
            async with self._commits.place():
                done = await self._commit(record, workspace, head, draft)
            return await self._attested(workspace, done, draft)

    async def _attested(self, workspace: Workspace, done: Committed, draft: Draft) -> Committed:
        """The same, with the note that was asked for, which a crash may have come before."""
        if draft.provenance is not None and self._notary is not None:
            await self._notary.attest(workspace, done.made, draft.provenance)
        return done

    async def _commit(
        self, record: Record, workspace: Workspace, head: str, draft: Draft
    ) -> Committed:
        unwanted: dict[bytes, str] = {}
        refusals = attempt = 0
        while True:
            planned = await changes.plan(workspace, head, draft.paths, unwanted, told=True)
            if not planned.changed:
                raise NothingToCommit(
                    "there is nothing to commit", skipped=str(len(planned.skipped))
                )
            made = write(draft, planned.tree, head, self._server, int(self._clock()))
            told = replace(
                record,
                last_request=draft.request_id,
                last_commit=made.commit.id,
                last_skipped=tuple((os.fsdecode(one.path), one.reason) for one in planned.skipped),
            )
            try:
                unstable = await self._land(told, workspace, head, planned, made)
            except Refused as error:
                refusals += 1
                paths = await _paths_of(workspace, head, error.object)
                if not paths or refusals > _REFUSALS:
                    raise failed("index-pack", error.result.code, error.result.errors) from None
                unwanted |= dict.fromkeys(paths, f"git does not allow this content: {error.rule}")
                continue
            if not unstable:
                break
            attempt += 1
            if attempt >= ATTEMPTS:
                unwanted |= dict.fromkeys(unstable, UNSTABLE)
        workspace.committed(head, made.commit.id)
        inside.tell(workspace, record.branch, head, made.commit.id)
        return Committed(made.commit.id, planned.skipped, made.commit)

    async def _land(
        self, record: Record, workspace: Workspace, head: str, planned: Planned, made: Made
    ) -> list[bytes]:
        """As `landing.land`, and note what is made: a request that comes again finds it."""
        await self._records.keep(record, durable=False)
        async with beside(asyncio.to_thread(self._records.sync, record.uid)) as synced:
            unstable = await landing.land(workspace, head, planned, made)
            await synced
        return unstable


async def _paths_of(workspace: Workspace, head: str, identifier: str) -> list[bytes]:
    if not identifier:
        return []
    answer = await workspace.ask("which", head, id=identifier)
    return [changes.raw(path) for path in answer["paths"]]


async def _again(record: Record, workspace: Workspace) -> Committed:
    skipped = [Skipped(os.fsencode(path), reason) for path, reason in record.last_skipped]
    [made] = await history.commits(workspace.repository, record.last_commit, count=1)
    return Committed(record.last_commit, skipped, made)
