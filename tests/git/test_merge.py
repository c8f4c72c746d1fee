"""Merges: what they make is what stock git makes, and they land whole or not at all."""

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from servicekit.errors import InvalidArgument
from services.git import history
from services.git.conflicts import Kind
from services.git.draft import Draft, Person
from services.git.errors import (
    BranchCheckedOut,
    GitTooOld,
    HeadMoved,
    MergeConflict,
    NonFastForward,
    NotLinear,
    PushRejected,
    RevisionNotFound,
    UnrelatedHistories,
)
from services.git.merge import Asked, Done, Preview, Strategy
from services.git.mergetree import check_version
from services.git.push import Target
from tests.git.parts import CALLER, OTHER, UID, Parts, add_commit, run_git, write


@pytest.fixture
def bare(source: Path, tmp_path: Path) -> Path:
    """An origin whose `main` nobody has checked out."""
    path = tmp_path / "bare.git"
    run_git(tmp_path, "clone", "-q", "--bare", str(source), str(path))
    return path


async def preview(
    git: Parts, uid: str = UID, *, fetch: bool = False, **asked: str | Strategy
) -> Preview:
    record, workspace = await git.ready(uid)
    caller = CALLER if fetch else None
    return await git.merger.preview(record, workspace, Asked(**asked), caller)  # type: ignore[arg-type]


async def merge(
    git: Parts, uid: str = UID, draft: Draft | None = None, **asked: str | Strategy
) -> Done:
    record, workspace = await git.ready(uid)
    draft = draft or Draft(message="")
    return await git.merger.merge(record, workspace, Asked(**asked), draft, CALLER)  # type: ignore[arg-type]


async def change(
    git: Parts, files: Mapping[str, str], uid: str = UID, message: str = "Ours"
) -> str:
    record, workspace = await git.ready(uid)
    for name, text in files.items():
        write(workspace, name, text)
    author = Person("Zoë", "zoe@example.org")
    draft = Draft(message=message, author=author)
    return (await git.committer.commit(record, workspace, draft)).commit


def on(origin: Path, branch: str, files: Mapping[str, str | None], message: str = "Theirs") -> str:
    """Commit to a branch of a bare repository, as somebody else would."""
    clone = origin.parent / f"clone-{os.urandom(4).hex()}"
    run_git(origin.parent, "clone", "-q", "-b", branch, str(origin), str(clone))
    for name, text in files.items():
        if text is None:
            (clone / name).unlink()
    written = {name: text for name, text in files.items() if text is not None}
    commit = add_commit(clone, written, message)
    run_git(clone, "push", "-q", "origin", branch)
    return commit


def show(path: Path, form: str, commit: str) -> str:
    return run_git(path, "log", "-1", f"--format={form}", commit)


async def test_a_merge_commit_has_the_target_and_the_source_as_parents(
    git: Parts, bare: Path
) -> None:
    await git.create(bare)
    ours = await change(git, {"new": "x\n"})
    theirs = on(bare, "main", {"README": "hello, all\n"})
    seen = await preview(git, fetch=True)
    assert (seen.fits, seen.unchanged, seen.changed_files) == (True, False, 1)
    assert (seen.relation.ahead, seen.relation.behind) == (1, 1)
    done = await merge(git)
    assert (done.previous, done.unchanged, done.target) == (theirs, False, "main")
    assert run_git(bare, "rev-parse", "main") == done.commit.id
    assert done.commit.parents == [theirs, ours]
    assert done.commit.tree == seen.merged.tree
    assert show(bare, "%an|%cn|%B", "main") == "Cove|Cove|Merge branch 'work' into main"
    _, workspace = await git.ready()
    known = await workspace.repository.refs("refs/remotes/origin/main")
    assert known == {"refs/remotes/origin/main": done.commit.id}
    assert workspace.head == ours
    again = await merge(git)
    assert (again.unchanged, again.commit.id, again.previous) == (True,) + (done.commit.id,) * 2


async def test_author_message_and_trailers_are_the_callers(git: Parts, bare: Path) -> None:
    await git.create(bare)
    await change(git, {"new": "x\n"})
    draft = Draft(message="Land it", author=Person("Ada", "a@b.org"), trailers=[("Bug", "7")])
    await merge(git, draft=draft)
    assert show(bare, "%an|%cn|%B", "main") == "Ada|Cove|Land it\n\nBug: 7"


async def test_a_squash_is_one_commit_and_the_same_again_is_nothing(git: Parts, bare: Path) -> None:
    await git.create(bare)
    await change(git, {"new": "x\n"})
    await change(git, {"more": "x\n"})
    theirs = on(bare, "main", {"README": "hello, all\n"})
    done = await merge(git, strategy=Strategy.SQUASH)
    assert done.commit.parents == [theirs]
    assert run_git(bare, "diff", "--name-only", theirs, "main") == "more\nnew"
    assert (await merge(git, strategy=Strategy.SQUASH)).unchanged
    assert (await preview(git, strategy=Strategy.SQUASH)).unchanged


async def test_a_rebase_repeats_each_commit_as_git_does(
    git: Parts, bare: Path, tmp_path: Path
) -> None:
    await git.create(bare)
    await change(git, {"new": "1\n"}, message="First\n\nBody\n")
    await change(git, {"README": "hello, all\n"}, message="On both sides")
    last = await change(git, {"new": "2\n"}, message="Last")
    theirs = on(bare, "main", {"README": "hello, all\n"}, "The same")
    record, workspace = await git.ready()
    await git.pusher.push(record, workspace, Target(), CALLER)
    clone = tmp_path / "stock"
    run_git(tmp_path, "clone", "-q", str(bare), str(clone))
    run_git(clone, "branch", "-q", "work", "origin/work")
    run_git(clone, "rebase", "-q", "main", "work")
    done = await merge(git, strategy=Strategy.REBASE)
    form = "--format=%T|%an|%ae|%ad|%B"
    assert run_git(bare, "log", form, f"{theirs}..main") == run_git(
        clone, "log", form, f"{theirs}..work"
    )
    assert run_git(bare, "log", "--format=%cn", f"{theirs}..main") == "Cove\nCove"
    assert done.commit.id != last
    assert run_git(bare, "rev-list", "--count", f"{theirs}..main") == "2"
    run_git(bare, "fsck", "--strict")


async def test_a_rebase_on_what_it_began_at_moves_the_target_only(git: Parts, bare: Path) -> None:
    await git.create(bare)
    await change(git, {"a": "1\n"})
    last = await change(git, {"b": "2\n"})
    assert (await merge(git, strategy=Strategy.REBASE)).commit.id == last


async def test_a_rebase_tells_at_which_commit_it_stops(git: Parts, bare: Path) -> None:
    await git.create(bare)
    await change(git, {"new": "1\n"})
    bad = await change(git, {"README": "ours\n"})
    await change(git, {"more": "1\n"})
    on(bare, "main", {"README": "theirs\n"})
    seen = await preview(git, fetch=True, strategy=Strategy.REBASE)
    assert (seen.fits, seen.stopped_at) == (False, bad)
    assert [one.path for one in seen.merged.conflicts] == [b"README"]
    with pytest.raises(MergeConflict):
        await merge(git, strategy=Strategy.REBASE)


async def test_a_rebase_of_merges_is_refused(git: Parts, bare: Path) -> None:
    await git.create(bare)
    run_git(bare, "branch", "side", "main")
    clone = bare.parent / "clone"
    run_git(bare.parent, "clone", "-q", "-b", "side", str(bare), str(clone))
    add_commit(clone, {"s": "1"})
    run_git(clone, "checkout", "-q", "-b", "other", "origin/main")
    add_commit(clone, {"o": "1"})
    run_git(clone, "checkout", "-q", "side")
    run_git(clone, "merge", "-q", "--no-ff", "-m", "m", "other")
    run_git(clone, "push", "-q", "origin", "side")
    await git.worktrees.fetch(UID, CALLER)
    with pytest.raises(NotLinear):
        await preview(git, source="side", strategy=Strategy.REBASE)
    assert (await preview(git, source="side")).fits
    await merge(git, source="side")
    assert show(bare, "%s", "main") == "Merge branch 'side' into main"


async def test_fast_forward_moves_the_target_or_refuses(git: Parts, bare: Path) -> None:
    await git.create(bare)
    ours = await change(git, {"new": "x\n"})
    done = await merge(git, strategy=Strategy.FAST_FORWARD)
    assert done.commit.id == ours == run_git(bare, "rev-parse", "main")
    theirs = on(bare, "main", {"README": "other\n"})
    await change(git, {"new": "y\n"})
    assert not (await preview(git, fetch=True, strategy=Strategy.FAST_FORWARD)).fits
    with pytest.raises(NonFastForward):
        await merge(git, strategy=Strategy.FAST_FORWARD)
    assert run_git(bare, "rev-parse", "main") == theirs


async def test_conflicts_are_told_and_change_nothing(git: Parts, bare: Path) -> None:
    await git.create(bare)
    await change(git, {"README": "ours\n", "src/a.txt": "same\n"})
    theirs = on(bare, "main", {"README": "theirs\n", "src/a.txt": "same\n"})
    seen = await preview(git, fetch=True)
    assert not seen.fits
    [conflict] = seen.merged.conflicts
    assert (conflict.path, conflict.kind) == (b"README", Kind.CONTENT)
    assert conflict.ours
    assert conflict.ours.mode == "100644"
    with pytest.raises(MergeConflict) as caught:
        await merge(git)
    metadata = caught.value.metadata
    assert json.loads(metadata["conflicts"]) == [{"path": "README", "kind": "CONTENT"}]
    assert (metadata["total"], metadata["target_commit"]) == ("1", theirs)
    assert run_git(bare, "rev-parse", "main") == theirs


async def test_a_preview_without_a_fetch_says_as_of_when_it_is(git: Parts, bare: Path) -> None:
    record = await git.create(bare)
    await change(git, {"new": "x\n"})
    on(bare, "main", {"README": "hello, all\n"})
    asked = git.transport.listings
    stale = await preview(git)
    assert (stale.target.head, stale.target.time) == (record.base_commit, record.resolved_time)
    assert git.transport.listings == asked


async def test_histories_without_a_common_commit_are_refused(git: Parts, bare: Path) -> None:
    await git.create(bare)
    clone = bare.parent / "clone"
    run_git(bare.parent, "clone", "-q", str(bare), str(clone))
    run_git(clone, "checkout", "-q", "--orphan", "alone")
    add_commit(clone, {"alone": "1"})
    run_git(clone, "push", "-q", "origin", "alone")
    await git.worktrees.fetch(UID, CALLER)
    with pytest.raises(UnrelatedHistories):
        await preview(git, source="alone")
    with pytest.raises(UnrelatedHistories):
        await merge(git, source="alone")


async def test_what_cannot_be_a_target_is_refused(git: Parts, bare: Path) -> None:
    await git.create(bare)
    await change(git, {"new": "x\n"})
    with pytest.raises(InvalidArgument) as caught:
        await merge(git, target="work")
    assert "git merge" in caught.value.remedy
    for name in ("-x", "a b", "a..b", "x\ny", "@", "refs/cove/x"):
        with pytest.raises(InvalidArgument):
            await merge(git, target=name)
    with pytest.raises(RevisionNotFound):
        await merge(git, target="nowhere")
    with pytest.raises(RevisionNotFound):
        await preview(git, source="--help")


async def test_a_branch_that_is_checked_out_at_the_origin_is_refused(
    git: Parts, source: Path
) -> None:
    await git.create(source)
    await change(git, {"new": "x\n"})
    with pytest.raises(BranchCheckedOut) as caught:
        await merge(git)
    assert "Merge into another branch" in caught.value.remedy


async def test_a_head_that_is_not_the_expected_one_is_refused(git: Parts, bare: Path) -> None:
    record = await git.create(bare)
    await change(git, {"new": "x\n"})
    on(bare, "main", {"README": "hello, all\n"})
    with pytest.raises(HeadMoved):
        await merge(git, expected_head=record.base_commit)


async def test_a_target_that_moves_meanwhile_is_not_overwritten(git: Parts, bare: Path) -> None:
    await git.create(bare)
    await change(git, {"new": "x\n"})
    computing = asyncio.create_task(git.cells.next("merge-tree"))
    merging = asyncio.create_task(merge(git))
    await computing  # It knows where the target is, and nothing of it goes on meanwhile.
    theirs = on(bare, "main", {"README": "hello, all\n"})
    with pytest.raises(HeadMoved) as caught:
        await merging
    assert caught.value.metadata["branch"] == "main"
    assert run_git(bare, "rev-parse", "main") == theirs
    assert (await merge(git)).previous == theirs


async def test_a_push_that_the_origin_refuses_leaves_nothing(git: Parts, bare: Path) -> None:
    record = await git.create(bare)
    await change(git, {"new": "x\n"})
    (bare / "refs" / "heads" / "main.lock").touch()
    with pytest.raises(PushRejected):
        await merge(git)
    (bare / "refs" / "heads" / "main.lock").unlink()
    assert run_git(bare, "rev-parse", "main") == record.base_commit
    assert (await preview(git)).target.head == record.base_commit
    assert (await merge(git)).previous == record.base_commit


async def test_two_merges_into_one_target_both_land(git: Parts, bare: Path) -> None:
    await git.create(bare)
    await git.create(bare, OTHER, branch="other")
    head = run_git(bare, "rev-parse", "main")
    mine = await change(git, {"mine": "x\n"})
    other = await change(git, {"other": "x\n"}, OTHER)
    await asyncio.gather(merge(git), merge(git, OTHER))
    assert run_git(bare, "merge-base", "--is-ancestor", mine, "main") == ""
    assert run_git(bare, "merge-base", "--is-ancestor", other, "main") == ""
    lost = await asyncio.gather(
        merge(git, expected_head=head),
        merge(git, OTHER, expected_head=head),
        return_exceptions=True,
    )
    assert [type(one) for one in lost] == [HeadMoved, HeadMoved]


async def test_a_request_that_comes_again_after_a_crash_lands_once(git: Parts, bare: Path) -> None:
    await git.create(bare)
    await change(git, {"new": "x\n"})
    head = run_git(bare, "rev-parse", "main")
    draft = Draft(message="", request_id="7")
    first = await merge(git, draft=draft, expected_head=head)
    on(bare, "main", {"README": "hello, all\n"})
    assert await merge(git, draft=draft, expected_head=head) == first
    run_git(bare, "update-ref", "refs/heads/main", head)
    second = await merge(git, draft=draft, expected_head=head)
    assert second.previous == head


async def test_without_an_origin_branches_of_its_own_are_merged_into(git: Parts) -> None:
    await git.create("")
    first = await change(git, {"a": "1\n"})
    seen = await preview(git)
    assert (seen.target.name, seen.target.head, seen.fits, seen.relation.ahead) == (
        "main",
        "",
        True,
        1,
    )
    assert (await merge(git)).commit.id == first
    second = await change(git, {"a": "2\n"})
    done = await merge(git)
    assert (done.url, done.previous, done.commit.parents) == ("", first, [first, second])
    record, workspace = await git.ready()
    assert await history.branches(record, workspace) == [
        history.Branch(name="work", head=second, own=True),
        history.Branch(name="main", head=done.commit.id, own=False),
    ]
    assert (await preview(git, source="main", target="release")).source == done.commit.id


def test_a_git_that_cannot_merge_is_told_with_a_remedy() -> None:
    check_version("2.38.0")
    check_version("3.0.windows.1")
    with pytest.raises(GitTooOld):
        check_version("2.38.1", (2, 39))
    for version in ("2.34.1", "1.9", "unknown"):
        with pytest.raises(GitTooOld) as caught:
            check_version(version)
        assert caught.value.metadata["found"] == version
        assert "2.38" in caught.value.remedy
