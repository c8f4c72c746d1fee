"""The git side of a workspace."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final, Literal

from cove import status
from cove.connection import Connection
from cove.connection import request_id as new_request_id
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import SourceServiceStub
from cove.git.v1 import git_pb2

Range = Literal["head..work", "base..work", "base..head"]
Strategy = Literal["merge", "squash", "rebase", "fast-forward"]

_RANGES: Final = {
    "head..work": git_pb2.DiffRange.KIND_HEAD_TO_WORK,
    "base..work": git_pb2.DiffRange.KIND_BASE_TO_WORK,
    "base..head": git_pb2.DiffRange.KIND_BASE_TO_HEAD,
}

_STRATEGIES: Final = {
    "merge": git_pb2.MERGE_STRATEGY_MERGE,
    "squash": git_pb2.MERGE_STRATEGY_SQUASH,
    "rebase": git_pb2.MERGE_STRATEGY_REBASE,
    "fast-forward": git_pb2.MERGE_STRATEGY_FAST_FORWARD,
}


class Source:
    """The branch of one workspace, seen from outside: nothing in it is executed."""

    def __init__(self, connection: Connection, workspace: str) -> None:
        self._connection = connection
        self._stub = SourceServiceStub(connection.channel)
        self._workspace = workspace

    async def status(self, max_entries: int = 0) -> git_pb2.WorktreeStatus:
        """What differs from the head of the branch; `truncated` says whether that is all.

        `max_entries` of 0 means as many as the server shows at most.
        """
        request = pb.GetWorktreeStatusRequest(name=self._workspace, max_entries=max_entries)
        return (await self._connection.unary(self._stub.GetWorktreeStatus, request)).status

    async def diff(
        self,
        range: Range | str = "head..work",  # noqa: A002 - the contract's word.
        paths: Sequence[str] = (),
        *,
        limits: git_pb2.DiffLimits | None = None,
    ) -> AsyncGenerator[git_pb2.DiffFile | git_pb2.DiffPatch | git_pb2.DiffEnd, None]:
        """Each file that differs, its patch in pieces, and at last `DiffEnd`.

        `range` may also be two revisions, `a..b`; anything else raises `ValueError`. `limits`,
        or those of the server where they are less, may cut a patch or the files: `truncated`
        says so. A diff is of one moment, so one that breaks off is not gone on with:
        `Unavailable` is raised, unless nothing had come yet.
        """
        request = pb.GetDiffRequest(
            name=self._workspace, range=_range(range), paths=paths, limits=limits
        )
        patience = self._connection.patience()
        while True:
            patience.begin()
            begun = False
            try:
                async with self._connection.stream(self._stub.GetDiff, request) as answers:
                    async for answer in answers:
                        begun = True
                        match answer.WhichOneof("event"):
                            case "file":
                                yield answer.file
                            case "patch":
                                yield answer.patch
                            case "end":
                                yield answer.end
                                return
                raise status.Unavailable("the diff broke off")
            except status.Unavailable as error:
                if begun:
                    raise
                await patience.wait(error)

    async def commit(
        self,
        message: str,
        *,
        author: tuple[str, str] | None = None,
        trailers: Mapping[str, str] | None = None,
        paths: Sequence[str] = (),
        expected_head: str = "",
        provenance: bool = False,
        frozen: bool = False,
        request_id: str = "",
    ) -> pb.CreateCommitResponse:
        """Commit what `status` shows, or the part of it below `paths`.

        `author` is name and mail address; the default is the server's own. With `provenance` it is
        signed where the commit comes from, and what ran in the workspace before it. With `frozen`
        every process of the workspace holds still meanwhile, so that all files are of one moment.
        Raises `FailedPrecondition` when there is nothing to commit, or nothing can be frozen here,
        and `Aborted` when the head is not `expected_head`. With the same `request_id`, a UUID, it
        is done once; see `Workspaces.create`.
        """
        request = pb.CreateCommitRequest(
            parent=self._workspace,
            commit=_draft(message, author, trailers),
            expected_head=expected_head,
            paths=paths,
            provenance=provenance,
            consistency=pb.CONSISTENCY_FROZEN if frozen else pb.CONSISTENCY_LIVE,
            request_id=new_request_id(request_id),
        )
        return await self._connection.unary(self._stub.CreateCommit, request)

    async def provenance(self, revision: str = "") -> pb.GetProvenanceResponse:
        """What was signed of a commit; default is the head of the branch.

        `cove.provenance.verify(it.envelope, key, it.commit_object)` checks it. Raises `NotFound`
        when there is none.
        """
        request = pb.GetProvenanceRequest(name=self._workspace, revision=revision)
        return await self._connection.unary(self._stub.GetProvenance, request)

    async def log(self, revision: str = "") -> AsyncGenerator[git_pb2.Commit, None]:
        """Commits from a revision back, newest first; default is the head of the branch."""
        request = pb.ListCommitsRequest(parent=self._workspace, revision=revision)
        while True:
            page = await self._connection.unary(self._stub.ListCommits, request)
            for commit in page.commits:
                yield commit
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def branches(self) -> AsyncGenerator[git_pb2.Branch, None]:
        """The own branch, then the origin's."""
        request = pb.ListBranchesRequest(parent=self._workspace)
        while True:
            page = await self._connection.unary(self._stub.ListBranches, request)
            for branch in page.branches:
                yield branch
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def push(
        self,
        *,
        remote: str = "",
        branch: str = "",
        expected_remote_head: str = "",
        credentials: git_pb2.Credentials | None = None,
        provenance: bool = False,
        request_id: str = "",
    ) -> pb.PushBranchResponse:
        """Push the branch to its origin, or to another `remote`, there maybe as another `branch`.

        It overwrites exactly `expected_remote_head` there, else raises `Aborted`. Raises
        `FailedPrecondition` when the branch there has other commits, is checked out there, or is
        refused by the remote's rules; `PermissionDenied` when `credentials` do not do. With
        `provenance` what is signed of the workspace's commits goes with it, to `provenance_ref`.
        """
        request = pb.PushBranchRequest(
            name=self._workspace,
            remote=remote,
            remote_branch=branch,
            expected_remote_head=expected_remote_head,
            credentials=credentials,
            provenance=provenance,
            request_id=new_request_id(request_id),
        )
        return await self._connection.unary(self._stub.PushBranch, request)

    async def preview_merge(
        self,
        target: str = "",
        *,
        source: str = "",
        strategy: Strategy = "merge",
        fetch: bool = False,
        max_conflicts: int = 0,
        credentials: git_pb2.Credentials | None = None,
    ) -> git_pb2.MergePreview:
        """What `merge` would do: conflicts are an answer here. Changes nothing.

        With `fetch` the origin is asked first, with `credentials` where it wants some; else the
        target is as it was when last asked, `target_time`.
        """
        request = pb.PreviewMergeRequest(
            name=self._workspace,
            source=source,
            target=target,
            strategy=_STRATEGIES[strategy],
            fetch=fetch,
            max_conflicts=max_conflicts,
            credentials=credentials,
        )
        return (await self._connection.unary(self._stub.PreviewMerge, request)).preview

    async def merge(
        self,
        target: str = "",
        *,
        source: str = "",
        strategy: Strategy = "merge",
        message: str = "",
        author: tuple[str, str] | None = None,
        trailers: Mapping[str, str] | None = None,
        expected_target_head: str = "",
        credentials: git_pb2.Credentials | None = None,
        request_id: str = "",
    ) -> pb.MergeBranchResponse:
        """Land the branch, or another `source`, on a branch of the origin, and push that.

        `target` is by default the branch that the workspace was made from; without an origin it
        is a branch of the workspace's own repository, `main`. `message`, `author` and `trailers`
        are for the commit of `merge` and `squash`. Raises `FailedPrecondition` with the reason
        MERGE_CONFLICT, of which `preview_merge` shows all, and for what `push` does; `Aborted`
        when the target is not at `expected_target_head`, or moved meanwhile.
        """
        given = message or author or trailers
        request = pb.MergeBranchRequest(
            name=self._workspace,
            source=source,
            target=target,
            strategy=_STRATEGIES[strategy],
            commit=_draft(message, author, trailers) if given else None,
            expected_target_head=expected_target_head,
            credentials=credentials,
            request_id=new_request_id(request_id),
        )
        return await self._connection.unary(self._stub.MergeBranch, request)


def _draft(
    message: str, author: tuple[str, str] | None, trailers: Mapping[str, str] | None
) -> git_pb2.Commit:
    commit = git_pb2.Commit(message=message)
    if author:
        commit.author.name, commit.author.email = author
    for key, value in (trailers or {}).items():
        commit.trailers.add(key=key, value=value)
    return commit


def _range(text: str) -> git_pb2.DiffRange:
    if text in _RANGES:
        return git_pb2.DiffRange(kind=_RANGES[text])
    old, dots, new = text.partition("..")
    if not dots:
        raise ValueError("a range is head..work, base..work, base..head, or two revisions a..b")
    made = git_pb2.DiffRange(kind=git_pb2.DiffRange.KIND_COMMITS, to=new)
    setattr(made, "from", old)
    return made
