"""Repositories, branches, commits, merges and pushes."""

from pathlib import Path

from cove.gateway.v1 import gateway_pb2 as pb
from cove.git.v1 import git_pb2
from cove.registry.v1 import registry_pb2
from services.git import scan, worktrees
from tests.errors.cases import provokes
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
    return await create(t, "x", repository=t.world.remote)


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


@provokes("NOTHING_TO_COMMIT", "FAILED_PRECONDITION")
async def nothing_to_commit(t: Try) -> Refusal:
    name = await t.workspace("clean", repository="")
    return await t.door.ask("CreateCommit", pb.CreateCommitRequest(parent=name, commit=change()))


@provokes("HEAD_MOVED", "ABORTED")
async def head_moved(t: Try) -> Refusal:
    name = await t.workspace("moved")
    await t.run(name, "echo x > new")
    request = pb.CreateCommitRequest(parent=name, commit=change(), expected_head="0" * 40)
    return await t.door.ask("CreateCommit", request)


@provokes("NON_FAST_FORWARD", "FAILED_PRECONDITION")
async def non_fast_forward(t: Try) -> Refusal:
    origin = bare(t, "behind")
    name = await t.workspace("behind", repository=f"file://{origin}")
    await t.run(name, "echo x > new")
    await t.commit(name)
    advance(origin, other="y")
    return await t.door.ask("PushBranch", pb.PushBranchRequest(name=name, remote_branch="main"))


@provokes("BRANCH_CHECKED_OUT", "FAILED_PRECONDITION")
async def branch_checked_out(t: Try) -> Refusal:
    origin = bare(t, "out").parent / "work"
    name = await t.workspace("out", repository=f"file://{origin}")
    await t.run(name, "echo x > new")
    await t.commit(name)
    return await t.door.ask("PushBranch", pb.PushBranchRequest(name=name, remote_branch="main"))


@provokes("PUSH_REJECTED", "FAILED_PRECONDITION")
async def push_rejected(t: Try) -> Refusal:
    origin = bare(t, "strict")
    git(origin, "config", "receive.hideRefs", "refs/heads/main")
    name = await t.workspace("strict", repository=f"file://{origin}")
    await t.run(name, "echo x > new")
    await t.commit(name)
    return await t.door.ask("PushBranch", pb.PushBranchRequest(name=name, remote_branch="main"))


@provokes("NO_REMOTE", "FAILED_PRECONDITION")
async def no_remote(t: Try) -> Refusal:
    name = await t.workspace("alone", repository="")
    await t.run(name, "echo x > new")
    await t.commit(name)
    return await t.door.ask("PushBranch", pb.PushBranchRequest(name=name))


@provokes("HEADS_DIVERGED", "ABORTED")
async def heads_diverged(t: Try) -> Refusal:
    """A commit inside, while the branch went on outside."""
    name = await t.workspace("apart")
    await t.run(name, "echo x > outside; echo y > inside")
    script = f"git add inside && git {AUTHOR} commit -qm Inside"
    request = pb.CreateCommitRequest(parent=name, commit=change(), paths=["outside"])
    await t.ok("CreateCommit", request)
    await t.run(name, f"git reset -q --hard HEAD~1; echo y > inside; {script}")
    await t.run(name, "echo z > more")
    request = pb.CreateCommitRequest(parent=name, commit=change())
    return await t.door.ask("CreateCommit", request)


@provokes("COMMITS_REFUSED", "FAILED_PRECONDITION")
async def commits_refused(t: Try) -> Refusal:
    """The head inside names something that is no commit."""
    name = await t.workspace("broken")
    script = "echo x > new; b=.git/$(git symbolic-ref HEAD); mkdir -p $(dirname $b)"
    await t.run(name, f"{script}; git hash-object -w new > $b")
    return await t.door.ask("CreateCommit", pb.CreateCommitRequest(parent=name, commit=change()))


@provokes("PROVENANCE_NOT_FOUND", "NOT_FOUND")
async def provenance_not_found(t: Try) -> Refusal:
    return await t.door.ask("GetProvenance", pb.GetProvenanceRequest(name=await t.shared()))


async def _topic(t: Try, name: str) -> tuple[str, Path]:
    """A workspace with a commit on its branch, and the origin of it."""
    origin = bare(t, name, file="one\n")
    made = await t.workspace(name, repository=f"file://{origin}")
    await t.run(made, "echo two > file")
    await t.commit(made)
    return made, origin


@provokes("MERGE_CONFLICT", "FAILED_PRECONDITION")
async def merge_conflict(t: Try) -> Refusal:
    name, origin = await _topic(t, "conflict")
    advance(origin, file="three\n")
    return await t.door.ask("MergeBranch", pb.MergeBranchRequest(name=name, target="main"))


@provokes("UNRELATED_HISTORIES", "FAILED_PRECONDITION")
async def unrelated_histories(t: Try) -> Refusal:
    name, origin = await _topic(t, "strangers")
    work = origin.parent / "work"
    git(work, "checkout", "-q", "--orphan", "fresh")
    git(work, "commit", "-qm", "Anew")
    git(work, "push", "-q", str(origin), "fresh")
    return await t.door.ask("MergeBranch", pb.MergeBranchRequest(name=name, target="fresh"))


@provokes("NOT_LINEAR", "FAILED_PRECONDITION")
async def not_linear(t: Try) -> Refusal:
    name, origin = await _topic(t, "knot")
    script = (
        f"git checkout -q -b side HEAD~1; echo s > side; git add side; git {AUTHOR} commit -qm S"
    )
    back = f"git checkout -q -; git {AUTHOR} merge -q --no-edit side"
    await t.run(name, f"{script}; {back}")
    advance(origin, other="y\n")
    request = pb.MergeBranchRequest(
        name=name, target="main", strategy=git_pb2.MERGE_STRATEGY_REBASE
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
