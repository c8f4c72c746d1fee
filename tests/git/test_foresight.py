"""Live worktrees that will be in each other's way, with stock git as the truth."""

import asyncio
from itertools import combinations
from pathlib import Path

import pytest

from servicekit.errors import InvalidArgument
from services.git import dotgit
from services.git.collisions import Collision
from services.git.conflicts import Kind
from services.git.draft import Draft
from services.git.errors import WorktreeNotFound
from services.git.foresight import Seen
from services.git.record import Mode
from tests.git.parts import CALLER, Parts, each_mode, make_source, run_git, tree_of, write

mode = each_mode
UIDS = [letter * 16 for letter in "abcde"]


async def several(git: Parts, source: Path, edits: list[dict[str, str | None]]) -> list[str]:
    """Worktrees with edits that are not committed; None: the file is removed."""
    uids = UIDS[: len(edits)]
    for uid, changed in zip(uids, edits, strict=True):
        await git.create(source, uid, branch=uid)
        _, workspace = await git.ready(uid)
        for name, text in changed.items():
            if text is None:
                (tree_of(workspace) / name).unlink()
            else:
                write(workspace, name, text)
    return uids


async def look(
    git: Parts, uids: list[str], *, work: bool = True
) -> tuple[list[Seen], list[Collision]]:
    return await git.foresight.look(uids, CALLER.tenant, include_uncommitted=work)


def paths(found: list[Collision]) -> dict[tuple[str, str], set[bytes]]:
    return {
        (one.first, one.second): {conflict.path for conflict in one.paths.shown} for one in found
    }


def stock(source: Path, edits: list[dict[str, str | None]]) -> dict[tuple[str, str], set[bytes]]:
    """What `git merge` of commits of the same edits leaves unmerged."""
    for uid, changed in zip(UIDS, edits, strict=False):
        run_git(source, "checkout", "-q", "-f", "-B", uid, "main")
        for name, text in changed.items():
            if text is None:
                (source / name).unlink()
            else:
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                (source / name).write_text(text)
        run_git(source, "add", "-A")
        run_git(source, "commit", "-q", "--allow-empty", "-m", uid)
    found = {}
    for one, other in combinations(UIDS[: len(edits)], 2):
        run_git(source, "checkout", "-q", "-f", "--detach", one)
        run_git(source, "merge", "-q", "-m", "x", other, check=False)
        unmerged = run_git(source, "ls-files", "-u", "-z").split("\0")
        if found_paths := {line.partition("\t")[2].encode() for line in unmerged if line}:
            found[one, other] = found_paths
        run_git(source, "reset", "-q", "--hard")
    run_git(source, "checkout", "-q", "-f", "main")
    return found


def store(git: Parts) -> set[str]:
    [repository] = (git.state / "git" / "repositories").glob("*/*.git")
    return {str(path.relative_to(repository)) for path in repository.rglob("*")}


async def test_work_collides_as_git_merges_it(git: Parts, source: Path) -> None:
    edits: list[dict[str, str | None]] = [
        {"README": "one\n", "new": "1\n"},
        {"README": "two\n", "src/a.txt": None},
        {"src/a.txt": "one\ntwo\nthree\n", "new": "3\n"},
        {"alone": "4\n"},
        {"README": "one\n"},
    ]
    uids = await several(git, source, edits)
    before = store(git)
    seen, found = await look(git, uids)
    assert store(git) == before
    assert [(one.uid, one.uncommitted, one.error) for one in seen] == [
        (uid, True, None) for uid in uids
    ]
    assert paths(found) == stock(source, edits)
    assert paths(found) != {}
    for uid in uids:
        _, workspace = await git.ready(uid)
        assert not list(workspace.paths.scratch.iterdir())


async def test_each_side_of_a_conflict_is_that_of_its_worktree(git: Parts, source: Path) -> None:
    uids = await several(
        git, source, [{"src/a.txt": None}, {"src/a.txt": "changed\n"}, {"src/a.txt": "else\n"}]
    )
    _, found = await look(git, uids)
    [gone, *_] = [one for one in found if (one.first, one.second) == (uids[0], uids[1])]
    [conflict] = gone.paths.shown
    blob = run_git(source, "hash-object", "--stdin", stdin=b"changed\n")
    assert conflict.kind is Kind.MODIFY_DELETE
    assert conflict.ours is None
    assert conflict.theirs is not None
    assert conflict.theirs.id == blob
    assert uids[0] in conflict.message
    _, turned = await look(git, uids[::-1])
    [again] = [one for one in turned if (one.first, one.second) == (uids[1], uids[0])]
    [conflict] = again.paths.shown
    assert conflict.theirs is None
    assert conflict.ours is not None
    assert conflict.ours.id == blob


async def test_what_is_not_committed_counts_only_if_it_shall(git: Parts, source: Path) -> None:
    uids = await several(git, source, [{"README": "one\n"}, {"README": "two\n"}])
    seen, found = await look(git, uids, work=False)
    assert not found
    assert not any(one.uncommitted for one in seen)
    for uid in uids:
        record, workspace = await git.ready(uid)
        await git.committer.commit(record, workspace, Draft(message="Change"))
    before = store(git)
    for work in (False, True):
        seen, found = await look(git, uids, work=work)
        assert paths(found) == {(uids[0], uids[1]): {b"README"}}
        assert not any(one.uncommitted for one in seen)
    assert store(git) == before


async def test_worktrees_are_of_one_repository_and_there(
    git: Parts, source: Path, tmp_path: Path
) -> None:
    await several(git, source, [{}])
    await git.create(make_source(tmp_path / "other"), UIDS[1], branch="b")
    with pytest.raises(InvalidArgument) as caught:
        await look(git, UIDS[:2])
    assert caught.value.violations[0].field == "uids"
    with pytest.raises(WorktreeNotFound):
        await look(git, [UIDS[0], UIDS[2]])
    with pytest.raises(WorktreeNotFound):
        await git.foresight.look(UIDS[:1] * 2, "others", include_uncommitted=True)


async def test_one_that_cannot_be_looked_at_is_told_and_left_out(
    git: Parts, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.git.foresight._MOST", 1000)
    big = {"README": "x" * 2000}
    uids = await several(git, source, [{"README": "one\n"}, {**big}, {"README": "two\n"}])
    seen, found = await look(git, uids)
    assert [one.error is None for one in seen] == [True, False, True]
    assert paths(found) == {(uids[0], uids[2]): {b"README"}}


async def test_too_much_to_be_merged_is_merged_in_smaller_steps_or_refused(
    git: Parts, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(f"{number:0100}\n" for number in range(4000))
    uids = await several(git, source, [{"new": f"{text}{name}\n"} for name in "abc"])
    monkeypatch.setattr("services.git.collisions._MADE_BYTES", 64 << 10)
    _, found = await look(git, uids)
    assert len(found) == 3


async def test_a_look_that_is_broken_off_leaves_nothing(git: Parts, source: Path) -> None:
    uids = await several(git, source, [{"README": "one\n"}, {"README": "two\n"}])
    before = store(git)
    merging = asyncio.create_task(git.cells.next("hash-object"))
    looking = asyncio.create_task(look(git, uids))
    await merging
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    assert store(git) == before
    for uid in uids:
        _, workspace = await git.ready(uid)
        assert not list(workspace.paths.scratch.iterdir())


async def test_commits_made_inside_count(git: Parts, source: Path, mode: Mode | None) -> None:
    uids = await several(git, source, [{"README": "one\n"}, {}])
    _, workspace = await git.ready(uids[1])
    write(workspace, "README", "two\n")
    record, workspace = await git.ready(uids[1])
    done = await git.committer.commit(record, workspace, Draft(message="Two"))
    assert dotgit.tip(workspace) != done.commit
    seen, found = await look(git, uids)
    assert [one.head for one in seen][1] == done.commit
    assert paths(found) == {(uids[0], uids[1]): {b"README"}}


async def test_what_a_killed_look_left_is_removed(git: Parts, source: Path, tmp_path: Path) -> None:
    await git.create(source)
    paths = git.worktrees.layout.paths(git.records.get(UIDS[0]))
    left = paths.scratch / "0123" / "ab"
    left.mkdir(parents=True)
    await git.ready()
    assert not left.exists()
