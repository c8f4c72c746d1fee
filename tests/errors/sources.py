"""Repositories, branches, commits, merges and pushes."""

from pathlib import Path

from cove.gateway.v1 import gateway_pb2 as pb
from cove.git.v1 import git_pb2
from cove.registry.v1 import registry_pb2
from services.git import scan, worktrees
from tests.errors.cases import GRPC, provokes
from tests.errors.doors import Refusal
from tests.errors.world import Try, limited
from tests.support.repository import git, make_repository

AUTHOR = "-c user.name=Ada -c user.email=ada@example.org"


async def create(t: Try, id_: str, **spec: object) -> Refusal:
    wanted = registry_pb2.EnvironmentSpec(**spec)  # type: ignore[arg-type]
    request = pb.CreateWorkspaceRequest(workspace_id=t.id(id_), workspace=pb.Workspace(spec=wanted))
    return await t.door.ask("CreateWorkspace", request)


def bare(t: Try, name: str, **files: str) -> Path:
    """A repository of its own, that can be pushed to."""
    folder = t.world.folder / t.id(name)
    make_repository(folder / "work", files or None)
    git(folder, "clone", "-q", "--bare", "work", "origin.git")
    return folder / "origin.git"


def advance(origin: Path, **files: str) -> str:
    """Somebody else commits on `main` there."""
    work = origin.parent / "work"
    for name, text in files.items():
        (work / name).write_text(text)
    git(work, "add", "--all")
    git(work, "commit", "-qm", "Elsewhere")
    git(work, "push", "-q", str(origin), "HEAD:refs/heads/main", "--force")
    return git(work, "rev-parse", "HEAD").strip()


def change(message: str = "Change") -> git_pb2.Commit:
    return git_pb2.Commit(message=message)


@provokes("REPOSITORY_NOT_FOUND", "NOT_FOUND")
async def repository_not_found(t: Try) -> Refusal:
    return await create(t, "x", repository=f"file://{t.world.folder}/none.git")


@provokes("REPOSITORY_ACCESS_DENIED", "PERMISSION_DENIED")
async def repository_access_denied(t: Try) -> Refusal:
    refused = await create(t, "x", repository=t.world.remote)
    assert "askpass" not in refused.metadata["cause"]
    return refused


@provokes("REMOTE_FORBIDDEN", "INVALID_ARGUMENT")
async def remote_forbidden(t: Try) -> Refusal:
    return await create(t, "x", repository="file:///etc")


@provokes("REMOTE_UNAVAILABLE", "UNAVAILABLE")
async def remote_unavailable(t: Try) -> Refusal:
    return await create(t, "x", repository=t.world.silent)


@provokes("REVISION_NOT_FOUND", "NOT_FOUND")
async def revision_not_found(t: Try) -> Refusal:
    return await create(t, "x", repository=f"file://{t.stage.repository}", revision="none")


@provokes("REPOSITORY_TOO_LARGE", "RESOURCE_EXHAUSTED")
async def repository_too_large(t: Try) -> Refusal:
    tight = t.tight()
    return await create(tight, "x", repository=f"file://{tight.stage.repository}")


@provokes("BRANCH_INVALID", "INVALID_ARGUMENT")
async def branch_invalid(t: Try) -> Refusal:
    return await create(t, "x", branch="no..such")


async def topic(t: Try) -> tuple[str, Path]:
    """A workspace with a commit on its branch, and its origin, whose `main` went on meanwhile."""

    async def make() -> tuple[str, Path]:
        origin = bare(t, "topic", file="one\n")
        name = await t.workspace("topic", repository=f"file://{origin}")
        await t.run(name, "echo two > file")
        await t.commit(name)
        advance(origin, file="three\n")
        return name, origin

    return await t.once("topic", make)


@provokes("NOTHING_TO_COMMIT", "FAILED_PRECONDITION")
async def nothing_to_commit(t: Try) -> Refusal:
    name, _ = await topic(t)
    return await t.door.ask("CreateCommit", pb.CreateCommitRequest(parent=name, commit=change()))


@provokes("HEAD_MOVED", "ABORTED")
async def head_moved(t: Try) -> Refusal:
    name, _ = await topic(t)
    request = pb.CreateCommitRequest(parent=name, commit=change(), expected_head="0" * 40)
    return await t.door.ask("CreateCommit", request)


@provokes("NON_FAST_FORWARD", "FAILED_PRECONDITION")
async def non_fast_forward(t: Try) -> Refusal:
    name, _ = await topic(t)
    return await t.door.ask("PushBranch", pb.PushBranchRequest(name=name, remote_branch="main"))


@provokes("BRANCH_CHECKED_OUT", "FAILED_PRECONDITION")
async def branch_checked_out(t: Try) -> Refusal:
    name, origin = await topic(t)
    work = origin.parent / "work"
    if t.door.name == GRPC:
        git(work, "switch", "-q", "-C", "out", "main~1")
    request = pb.PushBranchRequest(name=name, remote=f"file://{work}", remote_branch="out")
    return await t.door.ask("PushBranch", request)


@provokes("PUSH_REJECTED", "FAILED_PRECONDITION")
async def push_rejected(t: Try) -> Refusal:
    name, origin = await topic(t)
    git(origin, "config", "receive.hideRefs", "refs/heads/hidden")
    return await t.door.ask("PushBranch", pb.PushBranchRequest(name=name, remote_branch="hidden"))


@provokes("NO_REMOTE", "FAILED_PRECONDITION")
async def no_remote(t: Try) -> Refusal:
    async def make() -> str:
        name = await t.workspace("alone", repository="")
        await t.run(name, "echo x > new")
        await t.commit(name)
        return name

    request = pb.PushBranchRequest(name=await t.once("alone", make))
    return await t.door.ask("PushBranch", request)


@provokes("HEADS_DIVERGED", "ABORTED")
async def heads_diverged(t: Try) -> Refusal:
    """A commit inside, beside the one that was made outside."""

    async def make() -> str:
        name = await t.workspace("apart", repository="")
        await t.run(name, "echo x > first")
        await t.commit(name)
        await t.run(name, "echo x > outside")
        await t.commit(name)
        inside = f"echo y > inside; git add inside; git {AUTHOR} commit -qm Inside"
        await t.run(name, f"git reset -q --hard HEAD~1; {inside}; echo z > more")
        return name

    name = await t.once("apart", make)
    return await t.door.ask("CreateCommit", pb.CreateCommitRequest(parent=name, commit=change()))


@provokes("COMMITS_REFUSED", "FAILED_PRECONDITION")
async def commits_refused(t: Try) -> Refusal:
    """The head inside names something that is no commit."""

    async def make() -> str:
        name = await t.workspace("broken")
        script = "echo x > new; b=.git/$(git symbolic-ref HEAD); mkdir -p $(dirname $b)"
        await t.run(name, f"{script}; git hash-object -w new > $b")
        return name

    name = await t.once("broken", make)
    return await t.door.ask("CreateCommit", pb.CreateCommitRequest(parent=name, commit=change()))


@provokes("PROVENANCE_NOT_FOUND", "NOT_FOUND")
async def provenance_not_found(t: Try) -> Refusal:
    return await t.door.ask("GetProvenance", pb.GetProvenanceRequest(name=await t.shared()))


@provokes("MERGE_CONFLICT", "FAILED_PRECONDITION")
async def merge_conflict(t: Try) -> Refusal:
    name, _ = await topic(t)
    return await t.door.ask("MergeBranch", pb.MergeBranchRequest(name=name, target="main"))


@provokes("UNRELATED_HISTORIES", "FAILED_PRECONDITION")
async def unrelated_histories(t: Try) -> Refusal:
    name, origin = await topic(t)
    work = origin.parent / "work"
    if t.door.name == GRPC:
        git(work, "switch", "-q", "--orphan", "fresh")
        git(work, "commit", "-q", "--allow-empty", "-m", "Anew")
        git(work, "push", "-q", str(origin), "fresh")
    return await t.door.ask("MergeBranch", pb.MergeBranchRequest(name=name, target="fresh"))


@provokes("NOT_LINEAR", "FAILED_PRECONDITION")
async def not_linear(t: Try) -> Refusal:
    """One of the workspace's commits is a merge, made inside."""

    async def make() -> str:
        origin = bare(t, "knot")
        name = await t.workspace("knot", repository=f"file://{origin}")
        one = f"echo o > one; git add one; git {AUTHOR} commit -qm One"
        two = "git checkout -q -b side HEAD~1; echo s > side; git add side"
        two += f"; git {AUTHOR} commit -qm Side"
        await t.run(name, f"{one}; {two}; git checkout -q -; git {AUTHOR} merge -q --no-edit side")
        advance(origin, other="y\n")
        return name

    request = pb.MergeBranchRequest(
        name=await t.once("knot", make), target="main", strategy=git_pb2.MERGE_STRATEGY_REBASE
    )
    return await t.door.ask("MergeBranch", request)


@provokes("WORKTREE_TOO_OLD", "FAILED_PRECONDITION")
async def worktree_too_old(t: Try) -> Refusal:
    """Git is of a version that keeps worktrees otherwise."""
    request = pb.GetWorktreeStatusRequest(name=await t.shared())
    with limited(worktrees, "VERSION", 99):
        return await t.door.ask("GetWorktreeStatus", request)


@provokes("WORKTREE_TOO_LARGE", "RESOURCE_EXHAUSTED")
async def worktree_too_large(t: Try) -> Refusal:
    """More is to be told than git keeps in memory."""
    name = await t.workspace("large", repository="")
    await t.run(name, "for n in $(seq 200); do echo x > a-file-$n; done")
    with limited(scan, "_MAX_BYTES", 1000):
        return await t.door.ask("GetWorktreeStatus", pb.GetWorktreeStatusRequest(name=name))
