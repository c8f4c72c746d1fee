"""RPCs that make worktrees, keep them as they are, and remove them."""

import heapq
import itertools
import logging
from collections.abc import Iterator
from typing import Final

from cove.git.v1 import git_pb2 as pb
from servicekit.status import Context
from services.git import convert, forks
from services.git.face import Face, caller, tenant
from services.git.kept import Kept
from services.git.record import Record, State
from services.git.wanted import Wanted

_log = logging.getLogger(__name__)
_PAGE: Final = 100
_MAX_PAGE: Final = 1000


class WorktreesFace(Face):
    async def CreateWorktree(
        self, request: pb.CreateWorktreeRequest, context: Context
    ) -> pb.CreateWorktreeResponse:
        async def create() -> pb.CreateWorktreeResponse:
            return await self._fences.guard(request.uid, lambda: self._create(request))

        return await self._ledger.once(request, pb.CreateWorktreeResponse, create)

    async def _create(self, request: pb.CreateWorktreeRequest) -> pb.CreateWorktreeResponse:
        wanted = Wanted(
            uid=request.uid,
            repository=request.repository,
            revision=request.revision,
            branch=request.branch,
            max_staleness=request.max_staleness.ToTimedelta().total_seconds(),
            depth=request.depth,
            filter=request.filter,
            plain=request.plain,
        )
        record = await self._worktrees.create(wanted, caller(request.credentials))
        return pb.CreateWorktreeResponse(
            worktree=self._worktree(record),
            mount=self._mount(record),
            resolved_time=convert.time(record.resolved_time),
            warnings=record.warnings,
        )

    async def RemoveWorktree(
        self, request: pb.RemoveWorktreeRequest, context: Context
    ) -> pb.RemoveWorktreeResponse:
        async def remove() -> pb.RemoveWorktreeResponse:
            existed = await self._worktrees.remove(
                request.uid, tenant(), keep_unsaved=request.keep_unsaved
            )
            if not request.keep_commits:
                existed |= await self._replicas.release(request.uid, tenant())
            return pb.RemoveWorktreeResponse(existed=existed)

        async def fenced() -> pb.RemoveWorktreeResponse:
            return await self._fences.guard(request.uid, remove, ends=True)

        return await self._ledger.once(request, pb.RemoveWorktreeResponse, fenced)

    async def GetWorktree(
        self, request: pb.GetWorktreeRequest, context: Context
    ) -> pb.GetWorktreeResponse:
        record = self._worktrees.owned(request.uid, tenant())
        ready = record.state is State.READY
        return pb.GetWorktreeResponse(
            worktree=self._worktree(record),
            mount=self._mount(record) if ready else None,
        )

    async def ListWorktrees(
        self, request: pb.ListWorktreesRequest, context: Context
    ) -> pb.ListWorktreesResponse:
        page = self._tokens.page(request, default=_PAGE, maximum=_MAX_PAGE)
        of = tenant()
        found = list(itertools.islice(self._after(page.after, of), page.size + 1))
        shown = found[: page.size]
        more = self._tokens.next(request, after=shown[-1].uid) if len(found) > page.size else ""
        return pb.ListWorktreesResponse(
            worktrees=shown,
            next_page_token=more,
            page_size=page.size,
        )

    def _after(self, uid: str, of: str) -> Iterator[pb.Worktree]:
        """Worktrees, and commits that are kept of others, in the order of their uids."""
        records = self._worktrees.records
        both: Iterator[Record | Kept] = heapq.merge(
            records.after(uid, of), self._replicas.kept.after(uid, of), key=lambda one: one.uid
        )
        for _, group in itertools.groupby(both, key=lambda one: one.uid):
            one = next(group)  # The worktree, where there are both.
            try:
                yield self._listed(one)
            except ValueError as error:  # A damaged ref hides no others.
                _log.error("worktree %s: %s", one.uid, error)
                if isinstance(one, Kept):
                    yield convert.kept(one, "")
                else:
                    yield convert.worktree(one, "", self._worktrees.phase(one.uid))

    def _listed(self, one: Record | Kept) -> pb.Worktree:
        if isinstance(one, Record):
            return self._worktree(one)
        return convert.kept(one, self._replicas.commit(one))

    async def SnapshotWorktree(
        self, request: pb.SnapshotWorktreeRequest, context: Context
    ) -> pb.SnapshotWorktreeResponse:
        async def snapshot() -> pb.SnapshotWorktreeResponse:
            made = await self._forks.snapshot(
                request.uid,
                tenant(),
                request.snapshot_id,
                copy_live=request.copy_live,
                request_id=request.request_id,
            )
            return pb.SnapshotWorktreeResponse(snapshot=convert.snapshot(made))

        return await self._ledger.once(request, pb.SnapshotWorktreeResponse, snapshot)

    async def RemoveSnapshot(
        self, request: pb.RemoveSnapshotRequest, context: Context
    ) -> pb.RemoveSnapshotResponse:
        async def remove() -> pb.RemoveSnapshotResponse:
            existed = await self._forks.remove_snapshot(request.uid, tenant(), request.snapshot_id)
            return pb.RemoveSnapshotResponse(existed=existed)

        return await self._ledger.once(request, pb.RemoveSnapshotResponse, remove)

    async def ForkWorktree(
        self, request: pb.ForkWorktreeRequest, context: Context
    ) -> pb.ForkWorktreeResponse:
        async def fork() -> pb.ForkWorktreeResponse:
            wanted = forks.Wanted(
                uid=request.uid,
                source=request.source_uid,
                snapshot=request.snapshot_id,
                branch=request.branch,
                copy_live=request.copy_live,
            )
            record = await self._forks.fork(wanted, tenant())
            return pb.ForkWorktreeResponse(
                worktree=self._worktree(record), mount=self._mount(record)
            )

        async def fenced() -> pb.ForkWorktreeResponse:
            return await self._fences.guard(request.uid, fork)

        return await self._ledger.once(request, pb.ForkWorktreeResponse, fenced)
