"""Merging, called as a client calls it, and with the service killed under it."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from cove.git.v1 import git_pb2 as pb
from cove.git.v1.git_pb2_grpc import GitServiceStub
from tests.git.parts import UID, run_git
from tests.git.test_service import ACME, create, process, stub
from tests.servicekit.failing import failure
from tests.support.suite import until

__all__ = ["stub"]
REQUEST = "9b0f3a4e-8a53-4d9a-9a55-3f4d5b6c7d8e"


@pytest.fixture
def bare(source: Path, tmp_path: Path) -> Path:
    path = tmp_path / "bare.git"
    run_git(tmp_path, "clone", "-q", "--bare", str(source), str(path))
    run_git(path, "branch", "next", "main")
    return path


async def commit(stub: GitServiceStub, root: Path, name: str, text: str) -> str:
    (root / name).write_text(text)
    request = pb.CreateCommitRequest(uid=UID, commit=pb.Commit(message="Change"))
    return (await stub.CreateCommit(request, metadata=ACME)).commit.id


def at_work_on(repository: Path) -> bool:
    """Whether a process has it in its command line: git's own outlive the service for a moment."""
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(repository).encode() in each.read_bytes():
                return True
    return False


async def test_a_branch_is_previewed_merged_and_merged_again(
    stub: GitServiceStub, bare: Path, tmp_path: Path
) -> None:
    created = await create(stub, bare)
    root = tmp_path / "s" / (created.mount.upper or created.mount.worktree)
    head = await commit(stub, root, "new.txt", "1\n")
    asked = pb.PreviewMergeRequest(uid=UID, target="next", fetch=True)
    seen = (await stub.PreviewMerge(asked, metadata=ACME)).preview
    assert (seen.target, seen.target_commit, seen.source_commit, seen.base_commit) == (
        "next",
        created.worktree.base_commit,
        head,
        created.worktree.base_commit,
    )
    assert (seen.ahead, seen.behind, seen.mergeable, seen.changed_files) == (1, 0, True, 1)
    author = pb.Signature(name="Ada", email="ada@example.org")
    request = pb.MergeBranchRequest(
        uid=UID,
        target="next",
        strategy=pb.MERGE_STRATEGY_SQUASH,
        commit=pb.Commit(message="Land", author=author),
        expected_target_head=seen.target_commit,
        request_id=REQUEST,
    )
    done = await stub.MergeBranch(request, metadata=ACME)
    assert (done.target, done.previous_commit) == ("next", seen.target_commit)
    assert (done.commit.message, done.commit.author.name) == ("Land", "Ada")
    assert done.commit.tree == seen.tree
    assert run_git(bare, "rev-parse", "next") == done.commit.id
    assert await stub.MergeBranch(request, metadata=ACME) == done
    request.target = "main"
    reused = await failure(stub.MergeBranch(request, metadata=ACME))
    assert reused.reason == "REQUEST_ID_REUSED"


async def test_conflicts_come_in_the_details_and_in_full_from_a_preview(
    stub: GitServiceStub, bare: Path, tmp_path: Path
) -> None:
    created = await create(stub, bare)
    root = tmp_path / "s" / (created.mount.upper or created.mount.worktree)
    await commit(stub, root, "README", "theirs\n")
    first = pb.MergeBranchRequest(uid=UID, target="next")
    await stub.MergeBranch(first, metadata=ACME)
    names = [f"{'x' * 200}{number:03}" for number in range(60)]
    for name in names:
        (root / name).write_text("1\n")
    await commit(stub, root, "README", "again\n")
    clone = tmp_path / "clone"
    run_git(tmp_path, "clone", "-q", "-b", "next", str(bare), str(clone))
    for name in names:
        (clone / name).write_text("2\n")
    run_git(clone, "add", "-A")
    run_git(clone, "commit", "-qm", "Other")
    run_git(clone, "push", "-q", "origin", "next")
    failed = await failure(stub.MergeBranch(first, metadata=ACME))
    assert (failed.code, failed.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "MERGE_CONFLICT",
    )
    assert failed.info.metadata["total"] == "60"
    told = json.loads(failed.info.metadata["conflicts"])
    assert told[0] == {"path": names[0], "kind": "ADD_ADD"}
    assert 5 < len(told) < 20
    asked = pb.PreviewMergeRequest(uid=UID, target="next", max_conflicts=7)
    seen = (await stub.PreviewMerge(asked, metadata=ACME)).preview
    assert (len(seen.conflicts), seen.total_conflicts, seen.truncated) == (7, 60, True)
    assert not seen.mergeable
    [one] = {conflict.kind for conflict in seen.conflicts}
    assert one == pb.MergeConflict.KIND_ADD_ADD
    assert not seen.conflicts[0].HasField("base")
    assert seen.conflicts[0].theirs.mode == "100644"


@pytest.mark.parametrize("moment", [0.02, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4])
async def test_a_service_killed_while_it_merges_lands_once_on_retry(
    bare: Path, tmp_path: Path, moment: float
) -> None:
    request = pb.MergeBranchRequest(uid=UID, target="next", request_id=REQUEST)
    before = run_git(bare, "rev-parse", "next")
    request.expected_target_head = before
    async with (
        process(tmp_path) as (running, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = GitServiceStub(channel)
        created = await create(stub, bare)
        await commit(
            stub, tmp_path / "s" / (created.mount.upper or created.mount.worktree), "new.txt", "1\n"
        )
        merging = asyncio.ensure_future(stub.MergeBranch(request, metadata=ACME))
        await asyncio.wait([merging], timeout=moment)
        running.kill()
        await asyncio.wait([merging])
        merging.exception()
        await until(lambda: not at_work_on(bare), "git has ended")
    # A receive-pack that is killed leaves its locks in the origin, whoever pushed.
    for lock in bare.rglob("*.lock"):
        lock.unlink()
    async with (
        process(tmp_path) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        done = await GitServiceStub(channel).MergeBranch(request, metadata=ACME)
    assert done.previous_commit == before
    assert run_git(bare, "rev-parse", "next") == done.commit.id
    assert run_git(bare, "rev-list", "--count", f"{before}..next") == "2"
    for path in (bare, *(tmp_path / "s" / "git" / "repositories").glob("*/*.git")):
        run_git(path, "fsck", "--strict")
