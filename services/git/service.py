"""gRPC face of git: check the request, ask the parts, convert."""

import asyncio
import itertools
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cove.git.v1 import git_pb2 as pb
from cove.git.v1.git_pb2_grpc import GitServiceServicer
from cove.mount.v1 import mount_pb2
from servicekit import calls
from servicekit.errors import InvalidArgument
from servicekit.ledger import Ledger
from servicekit.paging import PageTokens
from servicekit.status import Context
from services.git import convert, convert_merge, diff, forks, history, provenance, revisions, status
from services.git.commit import Committer
from services.git.foresight import Foresight
from services.git.forks import Forks
from services.git.merge import Merger
from services.git.provenance import Notary
from services.git.push import Pusher, Target
from services.git.record import Record, State
from services.git.repositories import Caller
from services.git.workspace import Workspace
from services.git.worktrees import Wanted, Worktrees

_PAGE: Final = 100
_MAX_PAGE: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the face speaks for."""

    worktrees: Worktrees
    committer: Committer
    pusher: Pusher
    notary: Notary
    forks: Forks
    merger: Merger
    foresight: Foresight
    ledger: Ledger
    tokens: PageTokens
    state: Path


class GitServicer(GitServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._worktrees = parts.worktrees
        self._committer = parts.committer
        self._pusher = parts.pusher
        self._notary = parts.notary
        self._forks = parts.forks
        self._merger = parts.merger
        self._foresight = parts.foresight
        self._ledger = parts.ledger
        self._tokens = parts.tokens
        self._state = parts.state

    async def CreateWorktree(
        self, request: pb.CreateWorktreeRequest, context: Context
    ) -> pb.CreateWorktreeResponse:
        return await self._ledger.once(
            request, pb.CreateWorktreeResponse, lambda: self._create(request)
        )

    async def _create(self, request: pb.CreateWorktreeRequest) -> pb.CreateWorktreeResponse:
        wanted = Wanted(
            uid=request.uid,
            repository=request.repository,
            revision=request.revision,
            branch=request.branch,
            max_staleness=request.max_staleness.ToTimedelta().total_seconds(),
            depth=request.depth,
            filter=request.filter,
        )
        record = await self._worktrees.create(wanted, _caller(request.credentials))
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
                request.uid, _tenant(), keep_unsaved=request.keep_unsaved
            )
            return pb.RemoveWorktreeResponse(existed=existed)

        return await self._ledger.once(request, pb.RemoveWorktreeResponse, remove)

    async def GetWorktree(
        self, request: pb.GetWorktreeRequest, context: Context
    ) -> pb.GetWorktreeResponse:
        record = self._worktrees.owned(request.uid, _tenant())
        ready = record.state is State.READY
        return pb.GetWorktreeResponse(
            worktree=self._worktree(record),
            mount=self._mount(record) if ready else None,
        )

    async def ListWorktrees(
        self, request: pb.ListWorktreesRequest, context: Context
    ) -> pb.ListWorktreesResponse:
        page = self._tokens.page(request, default=_PAGE, maximum=_MAX_PAGE)
        tenant = _tenant()
        after = self._worktrees.records.after(page.after, tenant)
        found = list(itertools.islice(after, page.size + 1))
        shown = found[: page.size]
        more = self._tokens.next(request, after=shown[-1].uid) if len(found) > page.size else ""
        return pb.ListWorktreesResponse(
            worktrees=[self._worktree(record) for record in shown],
            next_page_token=more,
            page_size=page.size,
        )

    async def GetWorktreeStatus(
        self, request: pb.GetWorktreeStatusRequest, context: Context
    ) -> pb.GetWorktreeStatusResponse:
        record, workspace = await self._worktrees.ready(request.uid, _tenant())
        async with workspace.lock:
            head = workspace.head
            limit = min(request.max_entries or status.MAX_ENTRIES, status.MAX_ENTRIES)
            found, (ahead, behind) = await asyncio.gather(
                status.read(workspace, head, limit=limit),
                history.distance(record, workspace, head),
            )
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
            inside_commit=workspace.astray[0] if workspace.astray else "",
        )
        return pb.GetWorktreeStatusResponse(status=answer)

    async def GetDiff(
        self, request: pb.GetDiffRequest, context: Context
    ) -> AsyncGenerator[pb.GetDiffResponse, None]:
        record, workspace = await self._worktrees.ready(request.uid, _tenant())
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
        record, workspace = await self._worktrees.ready(request.uid, _tenant())
        done = await self._committer.commit(record, workspace, draft)
        return pb.CreateCommitResponse(
            commit=convert.commit(done.made), skipped=[convert.skipped(one) for one in done.skipped]
        )

    async def GetProvenance(
        self, request: pb.GetProvenanceRequest, context: Context
    ) -> pb.GetProvenanceResponse:
        record, workspace = await self._worktrees.ready(request.uid, _tenant())
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
        record, workspace = await self._worktrees.ready(request.uid, _tenant())
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
        record, workspace = await self._worktrees.ready(request.uid, _tenant())
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

    async def FetchRepository(
        self, request: pb.FetchRepositoryRequest, context: Context
    ) -> pb.FetchRepositoryResponse:
        async def fetch() -> pb.FetchRepositoryResponse:
            moment = await self._worktrees.fetch(request.uid, _caller(request.credentials))
            return pb.FetchRepositoryResponse(fetch_time=convert.time(moment))

        return await self._ledger.once(request, pb.FetchRepositoryResponse, fetch)

    async def PushBranch(
        self, request: pb.PushBranchRequest, context: Context
    ) -> pb.PushBranchResponse:
        return await self._ledger.once(request, pb.PushBranchResponse, lambda: self._push(request))

    async def _push(self, request: pb.PushBranchRequest) -> pb.PushBranchResponse:
        record, workspace = await self._worktrees.ready(request.uid, _tenant())
        target = Target(
            url=request.remote,
            branch=request.remote_branch,
            expected_head=request.expected_remote_head,
            provenance=request.provenance,
        )
        caller = _caller(request.credentials)
        done = await self._pusher.push(record, workspace, target, caller)
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
        record, workspace = await self._worktrees.ready(request.uid, _tenant())
        caller = _caller(request.credentials) if request.fetch else None
        asked = convert_merge.asked(request)
        found = await self._merger.preview(record, workspace, asked, caller)
        return pb.PreviewMergeResponse(preview=convert_merge.preview(found, request.max_conflicts))

    async def PreviewConflicts(
        self, request: pb.PreviewConflictsRequest, context: Context
    ) -> pb.PreviewConflictsResponse:
        work = request.include_uncommitted or not request.HasField("include_uncommitted")
        seen, collisions = await self._foresight.look(
            request.uids, _tenant(), include_uncommitted=work
        )
        return convert_merge.foreseen(seen, collisions, request.max_conflicts)

    async def MergeBranch(
        self, request: pb.MergeBranchRequest, context: Context
    ) -> pb.MergeBranchResponse:
        return await self._ledger.once(
            request, pb.MergeBranchResponse, lambda: self._merge(request)
        )

    async def _merge(self, request: pb.MergeBranchRequest) -> pb.MergeBranchResponse:
        record, workspace = await self._worktrees.ready(request.uid, _tenant())
        asked, draft = convert_merge.asked(request), convert_merge.draft(request)
        caller = _caller(request.credentials)
        return convert_merge.done(await self._merger.merge(record, workspace, asked, draft, caller))

    async def SnapshotWorktree(
        self, request: pb.SnapshotWorktreeRequest, context: Context
    ) -> pb.SnapshotWorktreeResponse:
        async def snapshot() -> pb.SnapshotWorktreeResponse:
            made = await self._forks.snapshot(
                request.uid, _tenant(), request.snapshot_id, copy_live=request.copy_live
            )
            return pb.SnapshotWorktreeResponse(snapshot=convert.snapshot(made))

        return await self._ledger.once(request, pb.SnapshotWorktreeResponse, snapshot)

    async def RemoveSnapshot(
        self, request: pb.RemoveSnapshotRequest, context: Context
    ) -> pb.RemoveSnapshotResponse:
        async def remove() -> pb.RemoveSnapshotResponse:
            existed = await self._forks.remove_snapshot(request.uid, _tenant(), request.snapshot_id)
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
            record = await self._forks.fork(wanted, _tenant())
            return pb.ForkWorktreeResponse(
                worktree=self._worktree(record), mount=self._mount(record)
            )

        return await self._ledger.once(request, pb.ForkWorktreeResponse, fork)

    def _worktree(self, record: Record) -> pb.Worktree:
        head = self._worktrees.repository_of(record).head(record.uid)
        return convert.worktree(record, head, self._worktrees.phase(record.uid))

    def _mount(self, record: Record) -> mount_pb2.Mount:
        objects = self._worktrees.repository_of(record).objects
        worktrees = self._worktrees
        paths = worktrees.paths(record)
        return convert.mount(record, paths, objects, worktrees.layers, self._state)


def _lasting(request: pb.CreateCommitRequest) -> pb.CreateCommitRequest:
    """The request without what a retry need not say again: what ran meanwhile."""
    said = pb.CreateCommitRequest()
    said.CopyFrom(request)
    if said.HasField("provenance"):
        said.provenance.Clear()
        said.provenance.SetInParent()
    return said


def _tenant() -> str:
    return calls.current().identity.tenant


def _caller(credentials: pb.Credentials) -> Caller:
    identity = calls.current().identity
    return Caller(
        tenant=identity.tenant,
        principal=identity.principal,
        credentials=convert.credentials(credentials),
    )


async def _diff(
    request: pb.GetDiffRequest, record: Record, workspace: Workspace
) -> AsyncGenerator[diff.Event, None]:
    paths, limits = convert.paths(request.paths), convert.limits(request.limits)
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
