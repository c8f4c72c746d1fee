"""Worktrees of repositories of which only a part is here."""

import asyncio
from pathlib import Path

import pytest

from services.git import diff, history, status
from services.git.diff import Limits
from services.git.draft import Draft
from services.git.errors import RevisionNotFound, WorktreeExists
from services.git.merge import Asked
from services.git.push import Target
from tests.git.parts import (
    CALLER,
    OTHER,
    UID,
    Parts,
    add_commit,
    each_mode,
    inside,
    run_git,
    write,
)

mode = each_mode
THIRD = "c" * 16


@pytest.fixture
def deep(source: Path) -> Path:
    """A source with eleven commits on `main`, and a branch of its own far back."""
    run_git(source, "branch", "old")
    for number in range(10):
        add_commit(
            source, {"big": f"{number}\n" * 500, "src/a.txt": f"{number}\n"}, f"Commit {number}"
        )
    return source


async def subjects(git: Parts, uid: str = UID) -> list[str]:
    _, workspace = await git.ready(uid)
    found = await history.commits(workspace.repository, workspace.head, count=100)
    return [commit.message.strip() for commit in found]


async def patch(git: Parts, old: str, uid: str = UID) -> bytes:
    _, workspace = await git.ready(uid)
    events = diff.of_work(workspace, old, (), Limits())
    return b"".join([event.data async for event in events if isinstance(event, diff.Patch)])


async def test_history_is_as_deep_as_asked(git: Parts, deep: Path) -> None:
    record = await git.create(deep, depth=3)
    assert await subjects(git) == ["Commit 9", "Commit 8", "Commit 7"]
    assert not [one for one in record.warnings if "remote" in one]
    _, workspace = await git.ready()
    program = inside(workspace)
    assert program.git("log", "--format=%s").split("\n") == ["Commit 9", "Commit 8", "Commit 7"]
    assert program.git("status", "--porcelain") == ""
    program.git("fsck")
    assert not await history.is_only_here(workspace)
    assert "old" not in run_git(workspace.repository.path, "for-each-ref")


async def test_a_shallow_one_is_worked_in_and_pushed(git: Parts, deep: Path) -> None:
    await git.create(deep, depth=1)
    record, workspace = await git.ready()
    write(workspace, "src/a.txt", "changed\n")
    [entry] = (await status.read(workspace, workspace.head)).entries
    assert entry.path == b"src/a.txt"
    assert b"+changed" in await patch(git, workspace.head)
    done = await git.committer.commit(record, workspace, Draft(message="Outside"))
    program = inside(workspace)
    program.git("reset", "-q", "--hard", done.commit)
    program.git("-c", "user.name=A", "-c", "user.email=a@b", "commit", "-qm", "In", "--allow-empty")
    record, workspace = await git.ready()
    assert await subjects(git) == ["In", "Outside", "Commit 9"]
    assert await history.distance(record, workspace, workspace.head) == (2, 0)
    await git.pusher.push(record, workspace, Target(), CALLER)
    assert run_git(deep, "rev-list", "--count", "work") == "13"
    run_git(deep, "fsck", "--strict")


async def test_what_is_cut_is_apart_and_nothing_gets_shorter(git: Parts, deep: Path) -> None:
    await git.create(deep, UID, branch="whole")
    await git.create(deep, OTHER, branch="cut", depth=2)
    assert len(await subjects(git, UID)) == 11
    assert len(await subjects(git, OTHER)) == 2
    add_commit(deep, {"new": "1\n"}, "Newer")
    await git.create(deep, THIRD, branch="third", depth=2)
    assert await subjects(git, OTHER) == ["Commit 9", "Commit 8"]
    assert await subjects(git, THIRD) == ["Newer", "Commit 9", "Commit 8"]
    assert len(await subjects(git, UID)) == 11
    assert await git.worktrees.fetch(OTHER, CALLER)
    with pytest.raises(WorktreeExists):
        await git.create(deep, OTHER, branch="cut", depth=3)


@pytest.mark.parametrize("revision", ["old", "refs/heads/old", "v1", "id"])
async def test_any_revision_can_be_cut(git: Parts, deep: Path, revision: str) -> None:
    run_git(deep, "tag", "-am", "x", "v1", "main~4")
    commit = run_git(deep, "rev-parse", "main~6")
    record = await git.create(deep, revision=commit if revision == "id" else revision, depth=1)
    assert len(await subjects(git)) == 1
    if revision == "id":
        assert record.base_commit == commit
    _, workspace = await git.ready()
    assert not (await status.read(workspace, workspace.head)).entries
    assert not await history.is_only_here(workspace)


async def test_old_contents_are_left_out(git: Parts, deep: Path) -> None:
    old = run_git(deep, "rev-parse", "main~1:big")
    before = run_git(deep, "rev-parse", "main~1")
    record = await git.create(deep, filter="blob:none")
    assert not [one for one in record.warnings if "remote" in one]
    assert len(await subjects(git)) == 11
    record, workspace = await git.ready()
    listed = run_git(workspace.repository.path, "cat-file", "--batch-all-objects", "--batch-check")
    assert old not in listed
    assert run_git(deep, "rev-parse", "main:big") in listed
    assert not (await status.read(workspace, workspace.head)).entries
    write(workspace, "src/moved.txt", "9\n")
    write(workspace, "src/a.txt", "changed\n")
    assert b"+changed" in await patch(git, workspace.head)
    with pytest.raises(RevisionNotFound) as caught:
        await patch(git, before)
    assert "filter" in caught.value.remedy
    done = await git.committer.commit(record, workspace, Draft(message="Outside"))
    program = inside(workspace)
    program.git("reset", "-q", "--hard", done.commit)
    assert program.git("status", "--porcelain") == ""
    assert program.git("rev-list", "--count", "HEAD") == "12"
    code, _, errors = program.attempt("git", "show", f"{before}:big")
    assert code != 0
    assert errors
    program.sh("echo in > inside.txt; git add -A")
    program.git("-c", "user.name=A", "-c", "user.email=a@b", "commit", "-qm", "In")
    record, workspace = await git.ready()
    assert (await subjects(git))[:2] == ["In", "Outside"]
    await git.pusher.push(record, workspace, Target(), CALLER)
    assert run_git(deep, "rev-list", "--count", "work") == "13"
    run_git(deep, "fsck", "--strict")


async def test_a_merge_that_needs_what_is_left_out_says_so(git: Parts, deep: Path) -> None:
    run_git(deep, "checkout", "-q", "-B", "next", "main~3")
    add_commit(deep, {"big": "other\n" * 500}, "Other")
    run_git(deep, "checkout", "-q", "main")
    await git.create(deep, revision="main", filter="blob:none")
    record, workspace = await git.ready()
    asked = Asked(target="next")
    with pytest.raises(RevisionNotFound) as caught:
        await git.merger.preview(record, workspace, asked, CALLER)
    assert "filter" in caught.value.remedy
    await git.create(deep, OTHER, revision="main", branch="whole")
    record, workspace = await git.ready(OTHER)
    assert (await git.merger.preview(record, workspace, asked, CALLER)).merged.total


async def test_a_filter_and_a_depth_go_together_and_follow_the_origin(
    git: Parts, deep: Path
) -> None:
    await git.create(deep, depth=2, filter="blob:limit=100")
    assert len(await subjects(git)) == 2
    add_commit(deep, {"big": "new\n" * 500}, "Newer")
    await git.create(deep, OTHER, branch="other", depth=2, filter="blob:limit=100")
    assert (await subjects(git, OTHER))[0] == "Newer"
    _, workspace = await git.ready(OTHER)
    assert not (await status.read(workspace, workspace.head)).entries
    assert inside(workspace).sh("wc -l < big").strip() == "500"


async def test_a_clone_that_is_broken_off_leaves_nothing(git: Parts, deep: Path) -> None:
    for kept, depth, kinds in ((0, 2, ""), (1, 0, "blob:none")):
        creating = asyncio.create_task(git.create(deep, depth=depth, filter=kinds))
        await git.cells.next("upload-pack")  # It is listed first.
        serving = await git.cells.next("upload-pack")
        serving.kill()
        with pytest.raises(Exception, match="broke off"):
            await creating
        assert len(list((git.state / "git" / "repositories").rglob("*.git"))) == kept
        assert not list((git.state / "git" / "worktrees").iterdir())
        await git.create(deep, depth=depth, filter=kinds)
        _, workspace = await git.ready()
        run_git(workspace.repository.path, "fsck")
        await git.worktrees.remove(UID, "acme")
