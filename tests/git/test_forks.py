"""Snapshots and forks: what they carry, what they share, and what is left when they go."""

import asyncio
import errno
import marshal
import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from services.git import scan, stacks, status
from services.git.draft import Draft
from services.git.errors import InUse, SnapshotExists, SnapshotNotFound, WorktreeExists
from services.git.forks import Wanted
from services.git.record import Mode, Record, Snapshot, State
from services.git.remote import Rules
from services.git.stacks import EMPTY
from services.git.workspace import Workspace
from tests.git.parts import (
    CALLER,
    OTHER,
    UID,
    Parts,
    each_mode,
    inside,
    leave,
    parts,
    run_git,
    tree_of,
    write,
)

mode = each_mode
THIRD = "cccccccccccccccc"


async def fork(
    git: Parts,
    uid: str = OTHER,
    source: str = UID,
    *,
    snapshot: str = "",
    copy_live: bool = False,
) -> tuple[Record, Workspace]:
    wanted = Wanted(
        uid=uid, source=source, snapshot=snapshot, branch=f"b-{uid[:4]}", copy_live=copy_live
    )
    await git.forks.fork(wanted, CALLER.tenant)
    return await git.ready(uid)


async def seen(workspace: Workspace) -> dict[str, str]:
    """All files as they are seen inside, without `.git`; the worktree is left as it was."""
    out = inside(workspace).sh(
        "find . -path ./.git -prune -o -type f -print | sort | "
        'while read -r f; do printf "%s=%s;" "$f" "$(cat "$f")"; done'
    )
    leave(workspace)
    return dict(part.split("=", 1) for part in out.split(";") if part)


async def differing(workspace: Workspace) -> list[bytes]:
    async with workspace.lock:
        return [entry.path for entry in (await status.read(workspace, workspace.head)).entries]


def layers(git: Parts) -> set[str]:
    """Frozen layers that are there."""
    return {path.name for path in (git.state / "git" / "layers").iterdir()} - {EMPTY}


async def test_a_fork_has_the_work_of_its_source_and_neither_sees_the_other_after(
    git: Parts, source: Path
) -> None:
    record = await git.create(source)
    _, workspace = await git.ready()
    program = inside(workspace)
    program.sh("echo new > new; rm README; mv src moved; echo '*.o' > .gitignore; echo x > a.o")
    program.sh("echo in > in; git add in; git commit -qm Inside")
    leave(workspace)
    before = await seen(workspace)
    forked, other = await fork(git)
    assert await seen(other) == before
    assert forked.base_commit == record.base_commit
    assert other.head == workspace.head != record.base_commit
    assert await differing(other) == await differing(workspace)
    assert inside(other).git("rev-parse", "HEAD") == other.head
    assert inside(other).git("symbolic-ref", "--short", "HEAD") == forked.branch
    inside(other).sh("echo theirs > new; echo more > more")
    leave(other)
    inside(workspace).sh("echo ours > new; rm in")
    leave(workspace)
    assert (await seen(other))["./new"] == "theirs"
    after = await seen(workspace)
    assert after["./new"] == "ours"
    assert "./more" not in after
    assert "./in" not in after
    assert "./in" in await seen(other)


async def test_a_fork_commits_on_its_own_branch(git: Parts, source: Path) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    write(workspace, "new", "1\n")
    leave(workspace)
    record, other = await fork(git)
    done = await git.committer.commit(record, other, Draft(message="Fork"))
    assert other.head == done.commit
    assert workspace.head == record.base_commit
    assert await differing(workspace) == [b"new"]
    assert await differing(other) == []


async def test_a_snapshot_stays_as_it_was(git: Parts, source: Path) -> None:
    record = await git.create(source)
    _, workspace = await git.ready()
    write(workspace, "new", "1\n")
    leave(workspace)
    before = await seen(workspace)
    await git.forks.snapshot(UID, CALLER.tenant, "first", copy_live=False)
    write(workspace, "new", "2\n")
    leave(workspace)
    await git.committer.commit(record, workspace, Draft(message="After"))
    await git.forks.snapshot(UID, CALLER.tenant, "second", copy_live=False)
    _, early = await fork(git, OTHER, snapshot="first")
    _, late = await fork(git, THIRD, snapshot="second")
    assert await seen(early) == before
    assert early.head == record.base_commit
    assert await differing(early) == [b"new"]
    assert (await seen(late))["./new"] == "2"
    assert late.head == workspace.head
    assert await differing(late) == []
    with pytest.raises(SnapshotExists):
        await git.forks.snapshot(UID, CALLER.tenant, "first", copy_live=False)
    with pytest.raises(SnapshotNotFound):
        await fork(git, "dddddddddddddddd", snapshot="absent")


async def test_a_snapshot_that_is_asked_for_again_is_the_same_one(git: Parts, source: Path) -> None:
    """As after a crash that came between it and the answer."""
    await git.create(source)

    async def take(request_id: str) -> Snapshot:
        return await git.forks.snapshot(
            UID, CALLER.tenant, "one", copy_live=False, request_id=request_id
        )

    assert await take("first") == await take("first")
    with pytest.raises(SnapshotExists):
        await take("second")


async def test_a_sandbox_that_has_the_worktree_allows_a_copy_alone(
    git: Parts, source: Path
) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    program = inside(workspace)
    program.sh("echo 1 > new; rm README; ln -s nowhere link; mkfifo pipe")
    with pytest.raises(InUse):
        await fork(git)
    assert git.records.find(OTHER) is None
    _, other = await fork(git, copy_live=True)
    program.sh("echo 2 > new")
    assert await differing(other) == [b"README", b"link", b"new"]
    assert (await seen(other))["./new"] == "1"


async def test_layers_go_with_the_last_one_that_stands_on_them(git: Parts, source: Path) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    write(workspace, "new", "1\n")
    leave(workspace)
    await git.forks.snapshot(UID, CALLER.tenant, "kept", copy_live=False)
    _, other = await fork(git)
    assert await git.worktrees.remove(UID, CALLER.tenant)
    assert (await seen(other))["./new"] == "1"
    assert await git.worktrees.remove(OTHER, CALLER.tenant)
    assert layers(git) == set()
    assert run_git(other.repository.path, "for-each-ref", "refs/cove") == ""


async def test_a_snapshot_that_is_removed_leaves_nothing(git: Parts, source: Path) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    write(workspace, "new", "1\n")
    leave(workspace)
    await git.forks.snapshot(UID, CALLER.tenant, "one", copy_live=True)
    assert await git.forks.remove_snapshot(UID, CALLER.tenant, "one")
    assert not await git.forks.remove_snapshot(UID, CALLER.tenant, "one")
    assert layers(git) == set(git.records.get(UID).layers)
    assert (await seen(workspace))["./new"] == "1"


async def test_twenty_forks_at_once_share_what_they_are_made_of(git: Parts, source: Path) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    write(workspace, "new", "1\n")
    leave(workspace)
    uids = [f"{'e' * 15}{letter}" for letter in "abcdefghijklmnopqrst"]
    made = await asyncio.gather(
        *(
            git.forks.fork(
                Wanted(uid=uid, source=UID, snapshot="", branch=uid, copy_live=False),
                CALLER.tenant,
            )
            for uid in uids
        )
    )
    assert len({record.layers for record in made}) == 1
    for uid in (uids[0], uids[-1]):
        _, other = await git.ready(uid)
        assert (await seen(other))["./new"] == "1"


async def test_the_same_fork_again_is_the_same_and_another_is_refused(
    git: Parts, source: Path
) -> None:
    await git.create(source)
    record, _ = await fork(git)
    again, _ = await fork(git)
    assert again == record
    with pytest.raises(WorktreeExists):
        await git.forks.fork(
            Wanted(uid=OTHER, source=UID, snapshot="", branch="x", copy_live=False), CALLER.tenant
        )


@pytest.mark.long
async def test_many_layers_become_one_that_looks_the_same(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "_DEPTH", 5)
    state = tmp_path / "state"
    async with parts(state, Rules(local_roots=[Path("/")], closed=state)) as git:
        if (await git.create(source)).mode is Mode.PLAIN:
            pytest.skip("no overlay here")
        _, workspace = await git.ready()
        for number in range(13):
            program = inside(workspace)
            program.sh(f"echo {number} > f{number}; rm -f f{number - 3}; mkdir -p d{number % 7}")
            program.sh(f"rm -rf d{(number + 3) % 7}; mkdir -p d{number % 7}/{number}")
            program.sh(f"echo {number} > d{number % 7}/{number}/x")
            program.sh("if test -e src; then mv src src-; mv src- src; fi")
            program.sh(f"test {number} != 6 || mv src elsewhere")
            leave(workspace)
            before = await seen(workspace)
            await git.forks.snapshot(UID, CALLER.tenant, f"s{number}", copy_live=False)
            _, workspace = await git.ready()
            assert await seen(workspace) == before
        record = git.records.get(UID)
        assert len(record.layers) < 8
        names = (git.state / "git" / "worktrees" / UID / "stack").read_text().split()
        assert tuple(names) == record.layers
        program = inside(workspace)
        program.git("add", "-A")
        tree = program.git("write-tree")
        leave(workspace)
        done = await git.committer.commit(record, workspace, Draft(message="All"))
        assert done.made.tree == tree


@pytest.mark.parametrize("step", ["recorded", "named", "moved", "made"])
async def test_a_layer_that_was_being_made_is_made_after_a_restart(
    tmp_path: Path, source: Path, step: str
) -> None:
    state = tmp_path / "state"
    rules = Rules(local_roots=[Path("/")], closed=state)
    async with parts(state, rules) as git:
        if (await git.create(source)).mode is Mode.PLAIN:
            pytest.skip("no overlay here")
        _, workspace = await git.ready()
        write(workspace, "new", "1\n")
        leave(workspace)
        record = git.records.get(UID)
        name = "a" * 16
        await git.records.keep(replace(record, freezing=name))
        directory = workspace.paths.directory
        if step != "recorded":
            (directory / "stack").write_text(f"{name}\n")
        if step in ("moved", "made"):
            workspace.tree.rename(git.state / "git" / "layers" / name)
        if step == "made":
            workspace.tree.mkdir()
            owner = git.cells.sandbox
            os.chown(workspace.tree, owner.uid, owner.gid)
    async with parts(state, rules) as git:
        record, workspace = await git.ready()
        assert record.layers == (name,)
        assert not record.freezing
        assert record.state is State.READY
        assert (await seen(workspace))["./new"] == "1"
        assert await differing(workspace) == [b"new"]
        assert layers(git) == {name}


async def test_a_hostile_git_directory_of_a_plain_worktree_is_not_written_through(
    tmp_path: Path, source: Path
) -> None:
    state, victim = tmp_path / "state", tmp_path / "victim"
    victim.mkdir(mode=0o777)
    rules = Rules(local_roots=[Path("/")], closed=state)
    async with parts(state, rules, mode=Mode.PLAIN) as git:
        await git.create(source)
        _, workspace = await git.ready()
        inside(workspace).sh(f"rm -rf .git; ln -s {victim} .git")
        leave(workspace)
        await git.forks.fork(
            Wanted(uid=OTHER, source=UID, snapshot="", branch="x", copy_live=False), CALLER.tenant
        )
        assert list(victim.iterdir()) == []
        _, other = await git.ready(OTHER)
        assert tree_of(other).exists()


async def test_what_a_frozen_layer_holds_is_listed_once_for_all(tmp_path: Path) -> None:
    """For as long as there is room for it: worktrees that stand on large ones may be many."""
    layers = [tmp_path / name for name in "ab"]
    for layer in layers:
        layer.mkdir()
        (layer / "file").touch()
    size = len(marshal.dumps(scan.scan(layers[0], "trusted")))
    frozen = scan.Frozen(room=size)
    first = await frozen.scan(layers[0], "trusted")
    for layer in layers:
        (layer / "more").touch()
    assert await frozen.scan(layers[0], "trusted") == first
    await frozen.scan(layers[1], "trusted")
    assert await frozen.scan(layers[0], "trusted") == scan.scan(layers[0], "trusted") != first


def test_many_directories_are_not_little_either(tmp_path: Path) -> None:
    """An answer is kept for little that rests, with what was asked."""
    for number in range(400):
        (tmp_path / str(number)).mkdir()
    assert not scan.is_settled([scan.scan(tmp_path, "trusted")], time.time_ns() + 1_000_000_000)


async def test_nothing_is_written_below_worktrees_that_are_there(git: Parts) -> None:
    record = await git.create("")
    layer = git.state / "git" / "layers" / EMPTY
    if record.mode is Mode.PLAIN:
        pytest.skip("a plain worktree lies on nothing")
    before = {path: path.lstat().st_ctime_ns for path in [layer, *layer.rglob("*")]}
    git.worktrees.layout.paths(record)
    await git.ready()
    async with parts(git.state, Rules(local_roots=[Path("/")])) as again:
        await again.ready()
    assert {path: path.lstat().st_ctime_ns for path in [layer, *layer.rglob("*")]} == before


@pytest.mark.parametrize(
    "number",
    [n if n in (5, 8) else pytest.param(n, marks=pytest.mark.long) for n in range(1, 12)],
)
async def test_a_layer_that_could_not_be_made_loses_nothing(
    number: int, git: Parts, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at one of its steps; whoever looks then, or tries again, sees all."""
    await git.create(source)
    _, workspace = await git.ready()
    write(workspace, "new", "1\n")
    leave(workspace)
    left, sync = number, os.fsync

    def full(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with suppress(OSError):
            await git.forks.snapshot(UID, "acme", "one", copy_live=False)
    _, workspace = await git.ready()
    assert await differing(workspace) == [b"new"]
    _, forked = await fork(git)
    assert await differing(forked) == [b"new"]
    assert await differing(workspace) == [b"new"]
    inside(workspace)
    assert (tree_of(workspace) / "new").read_text() == "1\n"


async def test_an_upper_layer_on_which_a_sandbox_was_started_stays_where_it_is(
    tmp_path: Path, source: Path
) -> None:
    """A service that was killed had said that it would be frozen, and no more."""
    state = tmp_path / "state"
    rules = Rules(local_roots=[Path("/")], closed=state)
    async with parts(state, rules) as git:
        if (await git.create(source)).mode is Mode.PLAIN:
            pytest.skip("no overlay here")
        _, workspace = await git.ready()
        await git.records.keep(replace(git.records.get(UID), freezing="a" * 16))
        program = inside(workspace)
        async with parts(state, rules) as again:
            record, seen_again = await again.ready()
            assert (record.layers, record.freezing) == ((), "")
            program.sh("echo 1 >new")
            assert await differing(seen_again) == [b"new"]


async def test_what_became_one_layer_is_told_to_who_mounts_it(tmp_path: Path, source: Path) -> None:
    """A service that was killed had kept it, and no more."""
    state = tmp_path / "state"
    rules = Rules(local_roots=[Path("/")], closed=state)
    async with parts(state, rules) as git:
        if (await git.create(source)).mode is Mode.PLAIN:
            pytest.skip("no overlay here")
        _, workspace = await git.ready()
        write(workspace, "new", "1\n")
        leave(workspace)
        await git.forks.snapshot(UID, "acme", "one", copy_live=False)
        workspace.paths.stack.write_text("gone\n")
    async with parts(state, rules) as git:
        record, workspace = await git.ready()
        assert workspace.paths.stack.read_text().split() == list(record.layers)
        assert (tree_of(workspace) / "new").read_text() == "1\n"
