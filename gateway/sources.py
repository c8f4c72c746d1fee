"""SourceService: git's RPCs, on workspaces."""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext

import grpc

from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import SourceServiceServicer
from cove.git.v1 import git_pb2
from cove.git.v1.git_pb2_grpc import GitServiceStub
from cove.registry.v1.registry_pb2 import Environment
from gateway import names
from gateway.provenance import Accounts
from gateway.ready import Workspaces, in_words_of
from gateway.records import Records
from gateway.replicas import Replicas
from gateway.still import Stills
from gateway.tools import Tools, retold
from servicekit.errors import InvalidArgument, ServiceError
from servicekit.status import Context

_log = logging.getLogger(__name__)


class SourceServicer(SourceServiceServicer):
    def __init__(
        self,
        tools: Tools,
        records: Records,
        workspaces: Workspaces,
        stills: Stills,
        replicas: Replicas,
    ) -> None:
        self._git = tools.git
        self._records = records
        self._workspaces = workspaces
        self._stills = stills
        self._replicas = replicas
        self._accounts = Accounts(tools)
        self._nodes = tools.nodes

    @property
    def _rpc(self) -> GitServiceStub:
        return self._git.rpc

    async def GetWorktreeStatus(
        self, request: pb.GetWorktreeStatusRequest, context: Context
    ) -> pb.GetWorktreeStatusResponse:
        environment = await self._workspaces.kept(request.name)
        asked = git_pb2.GetWorktreeStatusRequest(
            uid=environment.uid, max_entries=request.max_entries
        )
        with in_words_of(environment):
            answer = await self._git.unary(self._rpc.GetWorktreeStatus, asked)
        return pb.GetWorktreeStatusResponse(status=answer.status)

    async def GetDiff(
        self, request: pb.GetDiffRequest, context: Context
    ) -> AsyncIterator[pb.GetDiffResponse]:
        environment = await self._workspaces.kept(request.name)
        asked = git_pb2.GetDiffRequest(
            uid=environment.uid,
            range=request.range if request.HasField("range") else None,
            paths=request.paths,
            limits=request.limits if request.HasField("limits") else None,
        )
        with in_words_of(environment):
            async with self._git.stream(self._rpc.GetDiff, asked) as events:
                async for event in events:
                    if kind := event.WhichOneof("event"):
                        yield pb.GetDiffResponse(**{kind: getattr(event, kind)})

    async def CreateCommit(
        self, request: pb.CreateCommitRequest, context: Context
    ) -> pb.CreateCommitResponse:
        environment = await self._workspaces.kept(request.parent)
        asked = git_pb2.CreateCommitRequest(
            uid=environment.uid,
            commit=request.commit,
            expected_head=request.expected_head,
            paths=request.paths,
            request_id=names.derived(request.request_id, "CreateCommit"),
        )
        with in_words_of(environment, asked, request):
            if request.provenance:
                asked.provenance.CopyFrom(await self._accounts.of(environment))
            async with self._as_of(environment, request.consistency):
                answer = await self._git.unary(self._rpc.CreateCommit, asked)
        await self._note_head(environment, answer.commit.id)
        told = await self._replicas.kept(environment)
        return pb.CreateCommitResponse(
            commit=answer.commit, skipped=answer.skipped, warnings=[told] if told else []
        )

    async def GetProvenance(
        self, request: pb.GetProvenanceRequest, context: Context
    ) -> pb.GetProvenanceResponse:
        environment = await self._workspaces.kept(request.name)
        asked = git_pb2.GetProvenanceRequest(uid=environment.uid, revision=request.revision)
        with in_words_of(environment):
            answer = await self._git.unary(self._rpc.GetProvenance, asked)
        return pb.GetProvenanceResponse(
            commit=answer.commit,
            commit_object=answer.commit_object,
            envelope=answer.envelope,
            ref=answer.ref,
        )

    async def GetSigningKey(
        self, request: pb.GetSigningKeyRequest, context: Context
    ) -> pb.GetSigningKeyResponse:
        with self._nodes.anywhere():
            answer = await self._git.unary(self._rpc.GetSigningKey, git_pb2.GetSigningKeyRequest())
        return pb.GetSigningKeyResponse(key_id=answer.key_id, public_key=answer.public_key)

    async def ListCommits(
        self, request: pb.ListCommitsRequest, context: Context
    ) -> pb.ListCommitsResponse:
        environment = await self._workspaces.kept(request.parent)
        asked = git_pb2.ListCommitsRequest(
            uid=environment.uid,
            revision=request.revision,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        with in_words_of(environment):
            answer = await self._git.unary(self._rpc.ListCommits, asked)
        return pb.ListCommitsResponse(
            commits=answer.commits,
            next_page_token=answer.next_page_token,
            page_size=answer.page_size,
        )

    async def ListBranches(
        self, request: pb.ListBranchesRequest, context: Context
    ) -> pb.ListBranchesResponse:
        environment = await self._workspaces.kept(request.parent)
        asked = git_pb2.ListBranchesRequest(
            uid=environment.uid, page_size=request.page_size, page_token=request.page_token
        )
        with in_words_of(environment):
            answer = await self._git.unary(self._rpc.ListBranches, asked)
        return pb.ListBranchesResponse(
            branches=answer.branches,
            next_page_token=answer.next_page_token,
            page_size=answer.page_size,
        )

    async def PushBranch(
        self, request: pb.PushBranchRequest, context: Context
    ) -> pb.PushBranchResponse:
        environment = await self._workspaces.kept(request.name)
        asked = git_pb2.PushBranchRequest(
            uid=environment.uid,
            remote=request.remote,
            remote_branch=request.remote_branch,
            expected_remote_head=request.expected_remote_head,
            credentials=request.credentials if request.HasField("credentials") else None,
            request_id=names.derived(request.request_id, "PushBranch"),
            provenance=request.provenance,
        )
        with in_words_of(environment, asked, request):
            answer = await self._git.unary(self._rpc.PushBranch, asked)
        return pb.PushBranchResponse(
            remote=answer.remote,
            remote_branch=answer.remote_branch,
            commit=answer.commit,
            previous_commit=answer.previous_commit,
            provenance_ref=answer.provenance_ref,
        )

    async def PreviewMerge(
        self, request: pb.PreviewMergeRequest, context: Context
    ) -> pb.PreviewMergeResponse:
        environment = await self._workspaces.kept(request.name)
        asked = git_pb2.PreviewMergeRequest(
            uid=environment.uid,
            source=request.source,
            target=request.target,
            strategy=request.strategy,
            max_conflicts=request.max_conflicts,
            fetch=request.fetch,
            credentials=request.credentials if request.HasField("credentials") else None,
        )
        with in_words_of(environment):
            answer = await self._git.unary(self._rpc.PreviewMerge, asked)
        return pb.PreviewMergeResponse(preview=answer.preview)

    async def PreviewConflicts(
        self, request: pb.PreviewConflictsRequest, context: Context
    ) -> pb.PreviewConflictsResponse:
        # In turn: each tells the current call, so the task of it, which node it is about.
        environments = [await self._workspaces.kept(each) for each in request.workspaces]
        if len({self._nodes.key(each) for each in environments}) > 1:
            raise InvalidArgument(
                "workspaces",
                "are not all on one node",
                remedy="Compare those of one node: a fork is made where its source is.",
            )
        names_of = {one.uid: names.workspace_name(one.name) for one in environments}
        asked = git_pb2.PreviewConflictsRequest(uids=names_of, max_conflicts=request.max_conflicts)
        if request.HasField("include_uncommitted"):
            asked.include_uncommitted = request.include_uncommitted
        try:
            answer = await self._git.unary(self._rpc.PreviewConflicts, asked)
        except grpc.aio.AioRpcError as error:
            raise retold(error, words=names_of, fields={"uids": "workspaces"}) from error
        return pb.PreviewConflictsResponse(
            collisions=[_collision(one, names_of) for one in answer.collisions],
            workspaces=[
                pb.ComparedWorkspace(
                    name=names_of[one.uid],
                    head_commit=one.head_commit,
                    uncommitted=one.uncommitted,
                    error=one.error,
                    error_reason=one.error_reason,
                )
                for one in answer.worktrees
            ],
        )

    async def MergeBranch(
        self, request: pb.MergeBranchRequest, context: Context
    ) -> pb.MergeBranchResponse:
        environment = await self._workspaces.kept(request.name)
        asked = git_pb2.MergeBranchRequest(
            uid=environment.uid,
            source=request.source,
            target=request.target,
            strategy=request.strategy,
            commit=request.commit if request.HasField("commit") else None,
            expected_target_head=request.expected_target_head,
            credentials=request.credentials if request.HasField("credentials") else None,
            request_id=names.derived(request.request_id, "MergeBranch"),
        )
        with in_words_of(environment, asked, request):
            answer = await self._git.unary(self._rpc.MergeBranch, asked)
        await self._replicas.kept(environment)
        return pb.MergeBranchResponse(
            remote=answer.remote,
            target=answer.target,
            commit=answer.commit,
            previous_commit=answer.previous_commit,
            unchanged=answer.unchanged,
        )

    def _as_of(
        self, environment: Environment, consistency: pb.Consistency.ValueType
    ) -> AbstractAsyncContextManager[None]:
        """Where it is asked for, the workspace is held still within the block."""
        frozen = consistency == pb.CONSISTENCY_FROZEN
        return self._stills.held(environment) if frozen else nullcontext()

    async def _note_head(self, environment: Environment, commit: str) -> None:
        """The record shows the head as last seen; that it cannot now must not fail a commit."""
        seen = Environment(name=environment.name, head_commit=commit)
        try:
            await self._records.update(seen, ["head_commit"])
        except (ServiceError, grpc.aio.AioRpcError) as error:
            _log.warning("cannot note the head: %s", error)


def _collision(
    found: git_pb2.WorktreeCollision, names_of: Mapping[str, str]
) -> pb.WorkspaceCollision:
    for conflict in found.conflicts:
        for uid in (found.uid_a, found.uid_b):
            conflict.message = conflict.message.replace(uid, names_of[uid])
    return pb.WorkspaceCollision(
        workspace_a=names_of[found.uid_a],
        workspace_b=names_of[found.uid_b],
        conflicts=found.conflicts,
        total_conflicts=found.total_conflicts,
        truncated=found.truncated,
    )
