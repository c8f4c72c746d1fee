"""RPCs between a worktree's branch and other branches and repositories."""

from typing import Final

from cove.git.v1 import git_pb2 as pb
from servicekit.status import Context
from services.git import convert, convert_merge
from services.git.face import Face, caller, tenant
from services.git.push import Target

_PAGE: Final = 100
_MAX_PAGE: Final = 1000


class BranchesFace(Face):
    async def FetchRepository(
        self, request: pb.FetchRepositoryRequest, context: Context
    ) -> pb.FetchRepositoryResponse:
        async def fetch() -> pb.FetchRepositoryResponse:
            moment = await self._worktrees.fetch(request.uid, caller(request.credentials))
            return pb.FetchRepositoryResponse(fetch_time=convert.time(moment))

        return await self._ledger.once(request, pb.FetchRepositoryResponse, fetch)

    async def PushBranch(
        self, request: pb.PushBranchRequest, context: Context
    ) -> pb.PushBranchResponse:
        return await self._ledger.once(request, pb.PushBranchResponse, lambda: self._push(request))

    async def _push(self, request: pb.PushBranchRequest) -> pb.PushBranchResponse:
        record, workspace = await self._worktrees.ready(request.uid, tenant())
        target = Target(
            url=request.remote,
            branch=request.remote_branch,
            expected_head=request.expected_remote_head,
            provenance=request.provenance,
        )
        who = caller(request.credentials)
        done = await self._pusher.push(record, workspace, target, who)
        return pb.PushBranchResponse(
            remote=done.url,
            remote_branch=done.branch,
            commit=done.commit,
            previous_commit=done.previous,
            provenance_ref=done.provenance_ref,
        )

    async def PreviewMerge(
        self, request: pb.PreviewMergeRequest, context: Context
    ) -> pb.PreviewMergeResponse:
        record, workspace = await self._worktrees.ready(request.uid, tenant())
        who = caller(request.credentials) if request.fetch else None
        asked = convert_merge.asked(request)
        found = await self._merger.preview(record, workspace, asked, who)
        return pb.PreviewMergeResponse(preview=convert_merge.preview(found, request.max_conflicts))

    async def PreviewConflicts(
        self, request: pb.PreviewConflictsRequest, context: Context
    ) -> pb.PreviewConflictsResponse:
        work = request.include_uncommitted or not request.HasField("include_uncommitted")
        seen, collisions = await self._foresight.look(
            request.uids, tenant(), include_uncommitted=work
        )
        return convert_merge.foreseen(seen, collisions, request.max_conflicts)

    async def MergeBranch(
        self, request: pb.MergeBranchRequest, context: Context
    ) -> pb.MergeBranchResponse:
        return await self._ledger.once(
            request, pb.MergeBranchResponse, lambda: self._merge(request)
        )

    async def _merge(self, request: pb.MergeBranchRequest) -> pb.MergeBranchResponse:
        record, workspace = await self._worktrees.ready(request.uid, tenant())
        asked, draft = convert_merge.asked(request), convert_merge.draft(request)
        who = caller(request.credentials)
        return convert_merge.done(await self._merger.merge(record, workspace, asked, draft, who))
