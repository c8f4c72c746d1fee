"""Repositories are kept small while sandboxes and cells read them."""

import asyncio
import os
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from servicekit.disk import DiskGuard
from services.git import refs, status
from services.git.draft import Draft
from services.git.maintenance import Limits, Maintenance, measure
from services.git.record import Mode
from services.git.repository import Repository, head_ref
from tests.git.parts import (
    CALLER,
    OTHER,
    UID,
    Parts,
    add_commit,
    each_mode,
    inside,
    leave,
    run_git,
    write,
)

mode = each_mode
EAGER = Limits(loose=0, packs=1, refs=0, age=3600)


def upkeep(git: Parts, limits: Limits = EAGER) -> Maintenance:
    disk = DiskGuard(git.state, 0.9, measure=lambda _: 0.5)
    return Maintenance(git.records, git.worktrees.repositories, disk, limits)


async def used(git: Parts, source: Path, commits: int = 12) -> Repository:
    """A repository with loose objects, several packs, and objects that nothing names."""
    await git.create(source)
    record, workspace = await git.ready()
    for number in range(commits):
        write(workspace, f"file{number % 20}", f"{number}\n" * 50)
        record, workspace = await git.ready()
        await git.committer.commit(record, workspace, Draft(message=f"Commit {number}"))
        if number % 4 == 0:
            add_commit(source, {"upstream": f"{number}\n"})
            await git.worktrees.fetch(UID, CALLER)
    return workspace.repository


def lost(repository: Repository, content: bytes, age: float = 0) -> str:
    """An object that nothing names, as of `age` seconds ago."""
    path = repository.path
    identifier = run_git(path, "hash-object", "-w", "--stdin", stdin=content)
    file = path / "objects" / identifier[:2] / identifier[2:]
    keeper = repository.cells.keeper
    os.chown(file, keeper.uid, keeper.gid)
    os.chown(file.parent, keeper.uid, keeper.gid)
    moment = time.time() - age
    os.utime(file, (moment, moment))
    return identifier


def objects(repository: Repository) -> set[str]:
    listed = run_git(
        repository.path, "cat-file", "--batch-all-objects", "--batch-check", "--unordered"
    )
    return set(listed.split("\n"))


def check(repository: Repository) -> None:
    assert "error" not in run_git(repository.path, "fsck", "--strict", "--full")


async def test_what_is_loose_becomes_packs_and_no_object_goes(git: Parts, source: Path) -> None:
    repository = await used(git, source)
    old = lost(repository, b"old\n", 10**8)
    before, head = objects(repository), repository.head(UID)
    assert measure(repository.path).packs > 2
    await upkeep(git).look()
    assert objects(repository) == before
    assert run_git(repository.path, "cat-file", "-p", old) == "old"
    assert measure(repository.path).packs <= 2
    assert not list((repository.path / "objects").glob("[0-9a-f][0-9a-f]/*"))
    assert (repository.path / "objects" / "info" / "commit-graph").exists()
    assert repository.head(UID) == head
    check(repository)
    _, workspace = await git.ready()
    assert not (await status.read(workspace, head)).entries
    assert inside(workspace).git("rev-list", "--count", head) == "13"


async def test_little_is_left_as_it_is(git: Parts, source: Path) -> None:
    repository = await used(git, source)
    before = sorted(str(path) for path in repository.path.rglob("*"))
    await upkeep(git, Limits()).look()
    assert sorted(str(path) for path in repository.path.rglob("*")) == before


async def test_refs_that_are_packed_are_found_moved_and_removed(git: Parts, source: Path) -> None:
    await git.create(source, UID, branch="one")
    await git.create(source, OTHER, branch="two")
    record, workspace = await git.ready()
    repository = workspace.repository
    head = repository.head(UID)
    await upkeep(git).look()
    assert not (repository.path / "refs" / "cove").is_dir() or not list(
        (repository.path / "refs" / "cove").rglob("head")
    )
    assert repository.head(UID) == repository.head(OTHER) == head
    write(workspace, "new", "1\n")
    done = await git.committer.commit(record, workspace, Draft(message="One"))
    assert repository.head(UID) == done.commit
    assert repository.head(OTHER) == head
    await upkeep(git).look()
    assert repository.head(UID) == done.commit
    assert await git.worktrees.remove(UID, "acme")
    assert repository.head(UID) == ""
    assert head_ref(UID) not in run_git(repository.path, "for-each-ref")
    assert repository.head(OTHER) == head
    (repository.path / head_ref(OTHER)).parent.mkdir(parents=True, exist_ok=True)
    (repository.path / head_ref(OTHER)).write_text("what?\n")
    with pytest.raises(ValueError, match="damaged"):
        repository.head(OTHER)


async def test_a_ref_that_moved_since_it_was_packed_goes_with_its_worktree(
    git: Parts, source: Path
) -> None:
    """What is packed of it, which is what it was, does not come back."""
    await git.create(source)
    record, workspace = await git.ready()
    await upkeep(git).look()
    write(workspace, "new", "1\n")
    git.cells.names.clear()
    await git.committer.commit(record, workspace, Draft(message="One"))
    assert "update-ref" not in git.cells.names
    leave(workspace)
    assert await git.worktrees.remove(UID, "acme")
    assert "refs/cove" not in run_git(workspace.repository.path, "for-each-ref")
    assert not list((git.state / "git" / "worktrees").iterdir())


def test_packed_refs_are_read_once(tmp_path: Path) -> None:
    lines = [f"{number:040x} refs/cove/{number}/head" for number in range(10_000)]
    (tmp_path / "packed-refs").write_text("# pack-refs with: peeled\n" + "\n".join(lines) + "\n")
    first = refs.packed(tmp_path)
    assert refs.find(tmp_path, "refs/cove/77/head") == f"{77:040x}"
    assert refs.packed(tmp_path) is first
    (tmp_path / "new").write_text(f"{1:040x} refs/heads/x\n")
    (tmp_path / "new").rename(tmp_path / "packed-refs")
    assert refs.find(tmp_path, "refs/cove/77/head") == ""
    assert refs.find(tmp_path, "refs/heads/x") == f"{1:040x}"


async def test_readers_go_on_while_packs_are_replaced(
    git: Parts, source: Path, tmp_path: Path
) -> None:
    """As git in a sandbox reads them: as alternates, by one process all the time."""
    repository = await used(git, source)
    run_git(tmp_path, "init", "-q", "reader")
    alternates = tmp_path / "reader" / ".git" / "objects" / "info" / "alternates"
    alternates.parent.mkdir(exist_ok=True)
    alternates.write_text(f"{repository.objects}\n")
    identifiers = [line.split()[0] for line in objects(repository)]
    reader = subprocess.Popen(
        ["git", "-C", str(tmp_path / "reader"), "cat-file", "--batch-check"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdin
    assert reader.stdout
    stop, missing, rounds = threading.Event(), list[str](), 0

    def read() -> None:
        nonlocal rounds
        assert reader.stdin
        assert reader.stdout
        while not stop.is_set():
            for identifier in identifiers:
                reader.stdin.write(f"{identifier}\n")
                reader.stdin.flush()
                if "missing" in (line := reader.stdout.readline()):
                    missing.append(line)
            rounds += 1

    reading = asyncio.create_task(asyncio.to_thread(read))
    record, workspace = await git.ready()
    try:
        for number in range(4):
            write(workspace, "more", f"{number}\n")
            record, workspace = await git.ready()
            await git.committer.commit(record, workspace, Draft(message="More"))
            await upkeep(git).look()
            assert not (await status.read(workspace, workspace.head)).entries
    finally:
        stop.set()
        await reading
        reader.communicate()
    assert not missing
    assert rounds > 0
    check(repository)


async def test_cells_that_are_warm_go_on(git: Parts, source: Path) -> None:
    await used(git, source)
    record, workspace = await git.ready()
    assert not (await status.read(workspace, workspace.head)).entries
    await upkeep(git).look()
    write(workspace, "src/a.txt", "changed\n")
    [entry] = (await status.read(workspace, workspace.head)).entries
    assert entry.path == b"src/a.txt"
    done = await git.committer.commit(record, workspace, Draft(message="After"))
    assert workspace.head == done.commit
    check(workspace.repository)


async def test_what_nothing_names_goes_only_when_no_worktree_is_left(
    git: Parts, source: Path
) -> None:
    repository = await used(git, source, 2)
    old, young = lost(repository, b"old\n", 10**6), lost(repository, b"young\n")
    kept = "".join(run_git(repository.path, "rev-parse", "refs/remotes/origin/main"))
    keeping = replace(EAGER, loose=10**6, packs=10**6)
    await upkeep(git, keeping).look()
    assert old in str(objects(repository))
    await git.worktrees.remove(UID, "acme")
    await upkeep(git, keeping).look()
    left = str(objects(repository))
    assert old not in left
    assert young in left
    assert kept in left
    check(repository)
    before = len(git.cells.names)
    await upkeep(git, keeping).look()
    assert "prune" not in git.cells.names[before:]
    await git.create(source, OTHER)
    _, workspace = await git.ready(OTHER)
    assert inside(workspace).git("log", "-1", "--format=%H") == kept


async def test_who_comes_for_a_repository_does_not_wait_for_its_upkeep(
    git: Parts, source: Path
) -> None:
    repository = await used(git, source, 2)
    await git.worktrees.remove(UID, "acme")
    git.cells.stuck = "repack"
    packing = asyncio.create_task(git.cells.next("repack"))
    looking = asyncio.create_task(upkeep(git, replace(EAGER, loose=10**6, packs=10**6)).look())
    await packing
    await git.create(source, OTHER)
    await looking
    assert "prune" not in git.cells.names
    check(repository)
    packing = asyncio.create_task(git.cells.next("repack"))
    # Whatever was packed before it was broken off.
    looking = asyncio.create_task(upkeep(git, replace(EAGER, packs=-1)).look())
    await packing
    assert await git.worktrees.remove(OTHER, "acme")
    await looking


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.01, 0.02, 0.04, 0.08])
async def test_upkeep_that_is_killed_leaves_a_whole_repository(
    git: Parts, source: Path, mode: Mode | None, delay: float
) -> None:
    if mode is Mode.PLAIN:
        pytest.skip("the repository is the same")
    repository = await used(git, source, 8)
    before = objects(repository)
    packing = asyncio.create_task(git.cells.next("repack"))
    looking = asyncio.create_task(upkeep(git).look())
    running = await packing
    await asyncio.sleep(delay)
    running.kill()
    await looking
    assert objects(repository) == before
    check(repository)
    await upkeep(git).look()
    assert objects(repository) == before
    assert not list((repository.path / "objects" / "pack").glob("tmp_*"))
    check(repository)
