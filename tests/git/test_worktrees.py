"""Worktrees: made, and found again."""

import asyncio
import hashlib
from dataclasses import replace
from itertools import islice, product
from pathlib import Path

import pytest

from servicekit.queueing import PROCESSORS
from services.git import status
from services.git.errors import (
    BranchExists,
    BranchInvalid,
    RemoteForbidden,
    RepositoryNotFound,
    RevisionNotFound,
    WorktreeExists,
    WorktreeNotFound,
)
from services.git.record import State
from tests.git.parts import (
    CALLER,
    OTHER,
    UID,
    Parts,
    add_commit,
    both_modes,
    make_source,
    run_git,
    tree_of,
)
from tests.support.walking import all_in

mode = both_modes


def left(git: Parts) -> list[Path]:
    """What is kept of worktrees and repositories."""
    kept = git.state / "git"
    return [*all_in(kept / "worktrees"), *all_in(kept / "repositories")]


async def test_a_worktree_is_a_checkout_of_the_remote_head(git: Parts, source: Path) -> None:
    record = await git.create(source)
    assert record.state is State.READY
    assert record.base_commit == run_git(source, "rev-parse", "HEAD")
    assert record.base_branch == "main"
    _, workspace = await git.ready()
    assert (tree_of(workspace) / "README").read_text() == "hello\n"
    async with workspace.lock:
        assert (await status.read(workspace, workspace.head)).entries == []
    owner = workspace.cells.sandbox
    assert {path.lstat().st_uid for path in tree_of(workspace).rglob("*")} == {owner.uid}


async def test_branches_tags_and_commits_are_found(git: Parts, source: Path) -> None:
    first = run_git(source, "rev-parse", "HEAD")
    run_git(source, "tag", "-a", "v1", "-m", "One")
    run_git(source, "checkout", "-q", "-b", "feature/x")
    second = add_commit(source, {"second": "2"})
    run_git(source, "checkout", "-q", "main")
    wanted = {
        "main": first,
        "refs/heads/main": first,
        "v1": first,
        "refs/tags/v1": first,
        "feature/x": second,
        second: second,
        "HEAD": first,
    }
    for number, (revision, commit) in enumerate(wanted.items()):
        uid = "abcdefg"[number] * 16
        record = await git.create(source, uid, revision=revision, branch=f"b{number}")
        assert record.base_commit == commit, revision


async def test_a_commit_on_no_branch_is_found_by_its_id(git: Parts, source: Path) -> None:
    commit = add_commit(source, {"lost": "x"})
    run_git(source, "reset", "-q", "--hard", "HEAD~1")
    assert (await git.create(source, revision=commit)).base_commit == commit


async def test_a_short_commit_id_is_found_where_only_one_begins_so(
    git: Parts, source: Path
) -> None:
    old = run_git(source, "rev-parse", "HEAD")
    new = add_commit(source, {"new": "x"})
    assert (await git.create(source, "a" * 16, revision=old[:7], branch="a")).base_commit == old
    later = add_commit(source, {"later": "x"})
    found = await git.create(source, "b" * 16, revision=later[:12], branch="b")
    assert found.base_commit == later, "it was not fetched first"
    run_git(source, "branch", new[:8], old)
    named = await git.create(source, "c" * 16, revision=new[:8], branch="c")
    assert named.base_commit == old, "a branch of that name comes first"


async def test_a_short_id_of_several_or_of_no_commit_is_not_found(git: Parts, source: Path) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    common = colliding_commits(workspace.repository.path, workspace.head)
    tree = run_git(source, "rev-parse", "HEAD^{tree}")
    for short in (common, tree[:10], "0123456", run_git(source, "rev-parse", "HEAD")[:6]):
        with pytest.raises(RevisionNotFound):
            await git.create(source, OTHER, revision=short, branch="other")


def colliding_commits(store: Path, parent: str) -> str:
    """Put two commits into `store` whose ids begin with the same seven digits: those."""
    tree = run_git(store, "rev-parse", f"{parent}^{{tree}}")
    seen: dict[str, bytes] = {}
    for number in range(1 << 20):
        body = f"tree {tree}\nauthor A <a@b> {number} +0000\ncommitter A <a@b> 1 +0000\n\nx\n"
        data = body.encode()
        name = hashlib.sha1(b"commit %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        if (other := seen.get(name[:7])) is not None:
            for one in (other, data):
                run_git(store, "hash-object", "-t", "commit", "-w", "--stdin", stdin=one)
            for path in (store / "objects").rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o644)
            return name[:7]
        seen[name[:7]] = data
    raise AssertionError("no two ids begin alike")


async def test_a_repository_with_sha256_names_is_refused_by_name(
    git: Parts, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    run_git(other, "init", "-q", "-b", "main", "--object-format=sha256")
    add_commit(other, {"README": "x"})
    with pytest.raises(RemoteForbidden) as caught:
        await git.create(other)
    assert caught.value.metadata["rule"] == "object_format"
    assert left(git) == []


async def test_a_branch_is_asked_for_every_time_unless_staleness_is_allowed(
    git: Parts, source: Path
) -> None:
    old = (await git.create(source, "a" * 16, revision="main", branch="a")).base_commit
    new = add_commit(source, {"new": "x"})
    stale = await git.create(source, "b" * 16, revision="main", branch="b", max_staleness=60)
    assert stale.base_commit == old
    fresh = await git.create(source, "c" * 16, revision="main", branch="c")
    assert fresh.base_commit == new
    run_git(source, "tag", "-a", "v1", "-m", "One", old)
    tagged = await git.create(source, "d" * 16, revision="refs/tags/v1", branch="d")
    again = await git.create(
        source, "e" * 16, revision="refs/tags/v1", branch="e", max_staleness=60
    )
    assert (tagged.base_commit, again.base_commit) == (old, old)


async def test_what_staleness_allows_is_a_name_and_nothing_else(git: Parts, source: Path) -> None:
    add_commit(source, {"new": "x"})
    await git.create(source, revision="main")
    for revision in ("main~1", "main^{/Change}", "main@{0}", "ma\0in", "../main"):
        with pytest.raises(RevisionNotFound):
            await git.create(source, OTHER, revision=revision, branch="other", max_staleness=60)


@pytest.mark.parametrize("revision", ["none", "--output=x", "main~1", "0" * 40, "refs/remotes/x"])
async def test_an_unknown_revision_leaves_nothing(git: Parts, source: Path, revision: str) -> None:
    with pytest.raises(RevisionNotFound):
        await git.create(source, revision=revision)
    assert not list((git.state / "git" / "worktrees").iterdir())
    if revision != "0" * 40:
        assert left(git) == []


async def test_an_unknown_repository_leaves_nothing(git: Parts, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    for path in (tmp_path / "absent", tmp_path / "plain"):
        with pytest.raises(RepositoryNotFound):
            await git.create(path)
    assert left(git) == []


async def test_a_branch_that_git_allows_not_is_refused(git: Parts, source: Path) -> None:
    with pytest.raises(BranchInvalid):
        await git.create(source, branch="a..b")


async def test_the_same_uid_again_is_the_same_worktree(git: Parts, source: Path) -> None:
    first = await git.create(source)
    add_commit(source, {"later": "x"})
    assert await git.create(source) == first
    with pytest.raises(WorktreeExists):
        await git.create(source, branch="other")
    with pytest.raises(WorktreeExists):
        await git.create(source, caller=replace(CALLER, tenant="other"))


async def test_another_tenants_worktree_is_not_there(git: Parts, source: Path) -> None:
    await git.create(source)
    with pytest.raises(WorktreeNotFound):
        await git.worktrees.ready(UID, "other")
    assert not await git.worktrees.remove(UID, "other")


async def test_tenants_share_no_objects(git: Parts, source: Path) -> None:
    await git.create(source)
    await git.create(source, OTHER, caller=replace(CALLER, tenant="../other"))
    stores = list((git.state / "git" / "repositories").glob("*/*.git"))
    assert len(stores) == 2
    assert git.transport.fetches == 2


async def test_two_worktrees_at_once_share_one_clone(git: Parts, source: Path) -> None:
    await asyncio.gather(git.create(source, UID, branch="a"), git.create(source, OTHER, branch="b"))
    assert git.transport.fetches == 1


async def test_a_branch_belongs_to_one_worktree(git: Parts, source: Path) -> None:
    await git.create(source)
    with pytest.raises(BranchExists):
        await git.create(source, OTHER)
    assert await git.worktrees.remove(UID, "acme")
    assert await git.create(source, OTHER)


async def test_uncommitted_changes_of_the_origin_are_told_and_not_taken(
    git: Parts, source: Path
) -> None:
    (source / "README").write_text("uncommitted\n")
    record = await git.create(source)
    [warning] = record.warnings
    assert "uncommitted" in warning
    _, workspace = await git.ready()
    assert (tree_of(workspace) / "README").read_text() == "hello\n"


async def test_an_origin_without_commits_is_an_empty_worktree(git: Parts, tmp_path: Path) -> None:
    run_git(tmp_path, "init", "-q", "--bare", str(tmp_path / "empty.git"))
    assert (await git.create(tmp_path / "empty.git")).base_commit == ""


async def test_progress_can_be_read_while_it_clones(git: Parts, source: Path) -> None:
    for number in range(300):
        (source / f"{number}.txt").write_text(str(number))
    add_commit(source, {})
    creating = asyncio.create_task(git.create(source))
    phases = set()
    while not creating.done():
        phases.add(git.worktrees.phase(UID).name)
        await asyncio.sleep(0.001)
    await creating
    assert {"asking the remote", "checking out"} <= phases
    assert any("objects" in phase for phase in phases)
    assert git.worktrees.phase(UID).name == ""


async def test_a_repository_that_hangs_leaves_all_others_to_be_made(
    git: Parts, source: Path, tmp_path: Path
) -> None:
    """As one that is fetched for minutes, and of which many ask for a worktree meanwhile."""
    await git.create(source)
    _, workspace = await git.ready()
    other = make_source(tmp_path / "other")
    pairs = islice(product("cdefghijklmnopqrstuvwxyz", repeat=2), 4 * PROCESSORS + 1)
    uids = ["".join(pair) + "a" * 14 for pair in pairs]
    async with workspace.repository.lock:
        waiting = [asyncio.create_task(git.create(source, each, branch=each)) for each in uids]
        async with asyncio.timeout(60):
            while not git.worktrees.phase(uids[-1]).name:  # noqa: ASYNC110 # Nobody tells us.
                await asyncio.sleep(0.01)
            assert (await git.create(other, OTHER)).state is State.READY
        assert not any(each.done() for each in waiting)
    await asyncio.gather(*waiting)
