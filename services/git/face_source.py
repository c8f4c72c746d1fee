"""RPCs on what is in a worktree, and on its history."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from cove.git.v1 import git_pb2 as pb
from servicekit import calls
from servicekit.errors import InvalidArgument
from servicekit.status import Context
from services.git import convert, diff, history, provenance, revisions, status
from services.git.face import Face, tenant
from services.git.record import Record
from services.git.workspace import Workspace

_PAGE: Final = 100
_MAX_PAGE: Final = 1000


class SourceFace(Face):
    async def GetWorktreeStatus(
        self, request: pb.GetWorktreeStatusRequest, context: Context
    ) -> pb.GetWorktreeStatusResponse:
        record, workspace = await self._worktrees.ready(request.uid, tenant())
        async with workspace.lock:
            head = workspace.head
            limit = min(request.max_entries or status.MAX_ENTRIES, status.MAX_ENTRIES)
            found = await status.read(workspace, head, limit=limit)
            ahead, behind = await history.distance(record, workspace, head)
        shown = found.entries
        answer = pb.WorktreeStatus(
            branch=record.branch,
            head_commit=head,
            base_commit=record.base_commit,
            ahead=ahead,
            behind=behind,
            entries=[convert.entry(entry) for entry in shown],
            total=found.total,
            truncated=found.total > len(shown),
            inside_commit=workspace.astray.inside if workspace.astray else "",
        )
        return pb.GetWorktreeStatusResponse(status=answer)

    async def GetDiff(
        self, request: pb.GetDiffRequest, context: Context
    ) -> AsyncGenerator[pb.GetDiffResponse, None]:
        record, workspace = await self._worktrees.ready(request.uid, tenant())
        events = await _diff(request, record, workspace)
        async with aclosing(events):
            async for event in events:
                yield convert.event(event)

    async def CreateCommit(
        self, request: pb.CreateCommitRequest, context: Context
    ) -> pb.CreateCommitResponse:
        return await self._ledger.once(
            _lasting(request), pb.CreateCommitResponse, lambda: self._commit(request)
        )

    async def _commit(self, request: pb.CreateCommitRequest) -> pb.CreateCommitResponse:
        draft = convert.draft(request, calls.current().identity.principal)
        record, workspace = await self._worktrees.ready(request.uid, tenant())
        done = await self._committer.commit(record, workspace, draft)
        return pb.CreateCommitResponse(
            commit=convert.commit(done.made), skipped=[convert.skipped(one) for one in done.skipped]
        )

    async def GetProvenance(
        self, request: pb.GetProvenanceRequest, context: Context
    ) -> pb.GetProvenanceResponse:
        record, workspace = await self._worktrees.ready(request.uid, tenant())
        commit = await revisions.find(record, workspace, request.revision)
        found = await provenance.find(workspace, commit)
        return pb.GetProvenanceResponse(
            commit=found.commit,
            commit_object=found.data,
            envelope=found.envelope,
            ref=found.ref,
        )

    async def GetSigningKey(
        self, request: pb.GetSigningKeyRequest, context: Context
    ) -> pb.GetSigningKeyResponse:
        signer = self._notary.signer
        return pb.GetSigningKeyResponse(key_id=signer.key_id, public_key=signer.public_key)

    async def ListCommits(
        self, request: pb.ListCommitsRequest, context: Context
    ) -> pb.ListCommitsResponse:
        record, workspace = await self._worktrees.ready(request.uid, tenant())
        page = self._tokens.page(request, default=_PAGE, maximum=_MAX_PAGE)
        # A token keeps the commit that the list began at, so new ones do not shift it.
        start, _, skip = page.after.partition(":")
        if not start and not request.revision and not workspace.head:
            return pb.ListCommitsResponse(page_size=page.size)
        start = start or await revisions.find(record, workspace, request.revision)
        done = int(skip or 0)
        found = await history.commits(workspace.repository, start, skip=done, count=page.size + 1)
        after = f"{start}:{done + page.size}"
        return pb.ListCommitsResponse(
            commits=[convert.commit(one) for one in found[: page.size]],
            next_page_token=self._tokens.next(request, after=after)
            if len(found) > page.size
            else "",
            page_size=page.size,
        )

    async def ListBranches(
        self, request: pb.ListBranchesRequest, context: Context
    ) -> pb.ListBranchesResponse:
        record, workspace = await self._worktrees.ready(request.uid, tenant())
        page = self._tokens.page(request, default=_PAGE, maximum=_MAX_PAGE)
        found = await history.branches(record, workspace)
        if page.after:
            found = [one for one in found if not one.own and one.name > page.after[1:]]
        shown = found[: page.size]
        # The own branch comes before all names, hence a mark before each.
        last = "" if shown[-1:] == [] or shown[-1].own else shown[-1].name
        return pb.ListBranchesResponse(
            branches=[convert.branch(one) for one in shown],
            next_page_token=self._tokens.next(request, after=f"/{last}")
            if len(found) > page.size
            else "",
            page_size=page.size,
        )


def _lasting(request: pb.CreateCommitRequest) -> pb.CreateCommitRequest:
    """The request without what a retry need not say again: what ran meanwhile."""
    said = pb.CreateCommitRequest()
    said.CopyFrom(request)
    if said.HasField("provenance"):
        said.provenance.Clear()
        said.provenance.SetInParent()
    return said


async def _diff(
    request: pb.GetDiffRequest, record: Record, workspace: Workspace
) -> AsyncGenerator[diff.Event, None]:
    paths, limits = convert.paths(request.paths, diff.PATHS), convert.limits(request.limits)
    kinds = pb.DiffRange
    wanted = request.range
    if wanted.kind == kinds.KIND_COMMITS:
        if not wanted.to or not getattr(wanted, "from"):
            raise InvalidArgument("range", "KIND_COMMITS needs `from` and `to`")
        old = await revisions.find(record, workspace, getattr(wanted, "from"))
        new = await revisions.find(record, workspace, wanted.to)
        return diff.of_commits(workspace, old, new, paths, limits)
    if wanted.kind == kinds.KIND_BASE_TO_HEAD:
        return diff.of_commits(workspace, record.base_commit, workspace.head, paths, limits)
    base = wanted.kind == kinds.KIND_BASE_TO_WORK
    since = record.base_commit if base else workspace.head
    return diff.of_work(workspace, since, paths, limits)
