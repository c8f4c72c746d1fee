"""Worktrees removed, and what is broken off, killed or full: nothing is left of it."""

import asyncio
import os
import subprocess
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from servicekit.disk import DiskFull
from servicekit.status import to_status
from services.git import diff, files, forks, status
from services.git.draft import Draft
from services.git.errors import (
    CellUnavailable,
    RemoteUnavailable,
    UnsavedWork,
    WorktreeNotFound,
)
from services.git.push import Target
from services.git.record import Mode, Record, State
from services.git.remote import Rules
from services.git.repository import Repository
from services.git.stacks import EMPTY
from tests.git.parts import (
    CALLER,
    OTHER,
    UID,
    Parts,
    add_commit,
    each_mode,
    inside,
    leave,
    make_source,
    parts,
    run_git,
    tree_of,
    write,
)

mode = each_mode


def left(git: Parts) -> list[Path]:
    """What is kept of worktrees and repositories."""
    kept = git.state / "git"
    return [*(kept / "worktrees").rglob("*"), *(kept / "repositories").rglob("*")]


async def test_removal_takes_the_worktree_and_its_branch_and_leaves_the_repository(
    git: Parts, source: Path
) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    inside(workspace).sh(
        "n=0; while [ $n -lt 300 ]; do mkdir d; cd d; n=$((n + 1)); done\n"
        "cd /workspace; rm -r src; mkdir src closed; chmod 0 closed"
    )
    leave(workspace)
    assert await git.worktrees.remove(UID, "acme")
    assert not await git.worktrees.remove(UID, "acme")
    assert not workspace.paths.directory.exists()
    assert run_git(workspace.repository.path, "for-each-ref", "refs/cove") == ""
    await git.create(source, OTHER)
    assert git.transport.fetches == 1


async def test_unsaved_work_is_kept_when_asked(git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    path = write(workspace, "new", "new")
    with pytest.raises(UnsavedWork):
        await git.worktrees.remove(UID, "acme", keep_unsaved=True)
    await git.committer.commit(record, workspace, Draft(message="x"))
    with pytest.raises(UnsavedWork):
        await git.worktrees.remove(UID, "acme", keep_unsaved=True)
    assert path.exists()
    await git.pusher.push(record, workspace, Target(), CALLER)
    assert await git.worktrees.remove(UID, "acme", keep_unsaved=True)


async def test_git_killed_while_it_clones_leaves_nothing_and_a_retry_works(
    git: Parts, source: Path
) -> None:
    (source / "large").write_bytes(os.urandom(16 << 20))
    add_commit(source, {})
    creating = asyncio.create_task(git.create(source))
    (await git.cells.next("fetch")).kill()
    with pytest.raises(RemoteUnavailable):
        await creating
    assert left(git) == []
    assert (await git.create(source)).state is State.READY


async def test_a_create_that_is_cancelled_leaves_nothing(git: Parts, source: Path) -> None:
    creating = asyncio.create_task(git.create(source))
    await git.cells.next("checkout-index")
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert not list((git.state / "git" / "worktrees").iterdir())
    assert (await git.create(source)).state is State.READY


async def test_a_removal_stops_what_is_being_made(git: Parts, source: Path) -> None:
    creating = asyncio.create_task(git.create(source))
    await git.cells.next("upload-pack")
    assert await git.worktrees.remove(UID, "acme")
    with pytest.raises(WorktreeNotFound):
        await creating
    assert left(git) == []


async def test_a_removal_that_comes_as_a_create_ends_removes_it(git: Parts, source: Path) -> None:
    creating = asyncio.ensure_future(git.create(source))
    tasks = git.worktrees._making  # noqa: SLF001 - when one ends nobody else can see.
    while (making := tasks.get(UID)) is None:  # noqa: ASYNC110
        await asyncio.sleep(0)
    while not making.done():  # noqa: ASYNC110 - it has a turn before the create has.
        await asyncio.sleep(0)
    assert not creating.done()
    assert await git.worktrees.remove(UID, "acme")
    await asyncio.wait([creating])
    assert list(git.records) == []
    assert not list((git.state / "git" / "worktrees").iterdir())


async def test_a_removal_does_not_wait_for_a_fetch_for_another_worktree(
    git: Parts, source: Path
) -> None:
    await git.create(source)
    await git.create(source, OTHER, branch="other")
    _, workspace = await git.ready()
    async with workspace.repository.lock, asyncio.timeout(60):
        assert await git.worktrees.remove(UID, "acme")
        assert await git.worktrees.remove(OTHER, "acme")
    assert run_git(workspace.repository.path, "for-each-ref", "refs/cove") == ""


async def test_locks_of_killed_commands_block_nothing(git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    store = workspace.repository.path
    for name in ("packed-refs.lock", f"refs/cove/{UID}/head.lock", "objects/pack/tmp_pack_x"):
        (store / name).touch()
    write(workspace, ".git/index.lock", "")
    add_commit(source, {"later": "x"})
    await git.worktrees.fetch(UID, CALLER)
    write(workspace, "new", "new")
    await git.committer.commit(record, workspace, Draft(message="x"))
    assert not (store / "objects/pack/tmp_pack_x").exists()


async def test_a_pack_whose_index_was_not_written_goes(git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    half = workspace.repository.path / "objects/pack/pack-00.pack"
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"PACK")
    write(workspace, "new", "new")
    await git.committer.commit(record, workspace, Draft(message="x"))
    assert half.exists()  # Of somebody who may still be at it.
    anew = Repository(workspace.repository.path, git.cells)
    with anew.writing():
        assert not half.exists()


async def test_a_lock_of_one_who_writes_now_stays(git: Parts, source: Path) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    writes = workspace.repository.path / "objects/pack/tmp_pack_now"
    with workspace.repository.writing(), workspace.repository.writing():
        writes.touch()
        lock = workspace.repository.path / f"refs/cove/{OTHER}/head.lock"
        files.make_directory(lock.parent, git.cells.keeper)
        lock.touch()
        with pytest.raises(OSError, match="cannot be written"):
            await workspace.repository.point(OTHER, workspace.head, known=True)
        assert writes.exists()
        assert lock.exists()
    with workspace.repository.writing():
        await workspace.repository.point(OTHER, workspace.head, known=True)
    assert not lock.exists()


async def test_without_a_cell_nothing_is_done_and_the_remedy_is_told(
    tmp_path: Path, source: Path
) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    tmp_path.chmod(0o755)
    async with parts(tmp_path / "state", Rules(local_roots=[Path("/")]), bwrap=broken) as git:
        with pytest.raises(CellUnavailable) as caught:
            await git.create(source)
        assert "namespaces" in caught.value.remedy
        assert left(git) == []


async def test_a_full_disk_refuses_new_work_and_allows_removal(git: Parts, source: Path) -> None:
    await git.create(source)
    async with parts(git.state, Rules(local_roots=[Path("/")]), disk_used=0.91) as full:
        with pytest.raises(DiskFull):
            await full.create(source, OTHER, branch="other")
        record, workspace = await full.ready()
        write(workspace, "new", "new")
        with pytest.raises(DiskFull):
            await full.committer.commit(record, workspace, Draft(message="x"))
        assert await full.worktrees.remove(UID, "acme")


async def test_what_a_former_process_left_is_taken_over(
    git: Parts, source: Path, mode: Mode | None
) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    await git.records.keep(replace(git.records.get(UID), state=State.CREATING))
    write(workspace, "README", "changed\n")
    inside(workspace).sh("rm -r src")
    leave(workspace)
    stray = git.state / "git" / "worktrees" / OTHER
    (stray / "tree").mkdir(parents=True)
    async with parts(git.state, Rules(local_roots=[Path("/")]), mode=mode) as again:
        assert not stray.exists()
        assert (await again.create(source)).state is State.READY
        _, workspace = await again.ready()
        assert (tree_of(workspace) / "src/a.txt").read_text() == "one\ntwo\n"
        assert (tree_of(workspace) / "README").read_text() == "hello\n"
        assert await again.worktrees.remove(UID, "acme")


async def test_a_removal_that_was_broken_off_is_finished(git: Parts, tmp_path: Path) -> None:
    source = make_source(tmp_path / "other")
    await git.create(source)
    await git.records.keep(replace(git.records.get(UID), state=State.REMOVING))
    async with parts(git.state, Rules(local_roots=[Path("/")])) as again:
        assert list(again.records) == []
        assert not list((git.state / "git" / "worktrees").iterdir())


async def test_a_removal_that_breaks_off_at_the_end_leaves_no_repository(
    git: Parts, mode: Mode | None
) -> None:
    if os.geteuid() != 0 or mode is Mode.PLAIN:
        pytest.skip("an ordinary user can make no directory busy, and plain worktrees share none")
    await git.create("")
    _, workspace = await git.ready()
    write(workspace, "new", "x")
    leave(workspace)
    await git.forks.snapshot(UID, "acme", "one", copy_live=False)
    (layer,) = [each for each in (git.state / "git" / "layers").iterdir() if each.name != EMPTY]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "x", str(layer)], check=True)
    try:
        with pytest.raises(OSError, match="cannot be removed"):
            await git.worktrees.remove(UID, "acme")
        assert left(git) == []
    finally:
        subprocess.run(["umount", "-l", str(layer)], check=True)


async def test_a_diff_of_more_than_there_is_room_for_fills_no_disk(
    git: Parts, source: Path, mode: Mode | None
) -> None:
    if os.geteuid() != 0 or mode is not None:
        pytest.skip("an ordinary user can mount no small disk, and once is enough")
    root = git.state / "git" / "worktrees"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m,mode=711", "x", str(root)], check=True)
    try:
        await git.create(source)
        record, workspace = await git.ready()

        async def compare() -> int:
            stream = diff.of_work(workspace, record.base_commit, [], diff.Limits())
            async with aclosing(stream) as events:
                return len([event async for event in events])

        write(workspace, "large", os.urandom(6 << 20))
        assert await compare() == 2
        write(workspace, "large", os.urandom(48 << 20))
        with pytest.raises(DiskFull):
            await compare()
        (tree_of(workspace) / "large").unlink()
        assert await compare() == 1
        leave(workspace)
        assert await git.worktrees.remove(UID, "acme")
    finally:
        await git.cells.__aexit__()
        subprocess.run(["umount", "-l", str(root)], check=True)


async def test_a_full_disk_of_repositories_is_told_as_such(
    git: Parts, source: Path, mode: Mode | None
) -> None:
    if os.geteuid() != 0 or mode is not None:
        pytest.skip("an ordinary user can mount no small disk, and once is enough")
    root = git.state / "git" / "repositories"
    root.mkdir(exist_ok=True, mode=0o711)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "x", str(root)], check=True)
    try:
        await git.create(source)
        record, workspace = await git.ready()
        write(workspace, "new", os.urandom(64 << 10))
        (source / "noise").write_bytes(os.urandom(1 << 20))
        run_git(source, "add", "noise")
        run_git(source, "commit", "-qm", "More than there is room for")
        with (root / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
            while True:
                ballast.write(bytes(4096))
        for refused in (
            git.create(source, OTHER, branch="other", max_staleness=60),
            git.create(source, OTHER, branch="other"),
            git.committer.commit(record, workspace, Draft(message="More")),
        ):
            with pytest.raises((DiskFull, OSError)) as caught:
                await refused
            assert to_status(caught.value).code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        (root / "ballast").unlink()
        assert await git.committer.commit(record, workspace, Draft(message="More"))
    finally:
        await git.cells.__aexit__()
        subprocess.run(["umount", "-l", str(root)], check=True)


async def test_what_waits_for_a_worktree_that_is_removed_is_told_and_makes_nothing_of_it(
    git: Parts, source: Path
) -> None:
    await git.create(source)
    record, workspace = await git.ready()

    async def look() -> object:
        async with workspace.lock:
            return await status.read(workspace, workspace.head)

    async with workspace.lock:
        waiting = [
            asyncio.ensure_future(look()),
            asyncio.ensure_future(git.committer.commit(record, workspace, Draft(message="x"))),
            asyncio.ensure_future(git.forks.snapshot(UID, "acme", "one", copy_live=False)),
            asyncio.ensure_future(fork(git)),
        ]
        assert await git.worktrees.remove(UID, "acme")
    for each in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(each, WorktreeNotFound)
    with pytest.raises(WorktreeNotFound):
        await git.records.keep(record)
    assert list(git.records) == []
    assert not list((git.state / "git" / "worktrees").iterdir())


@pytest.mark.parametrize("copy_live", [False, pytest.param(True, marks=pytest.mark.long)])
async def test_a_fork_of_what_is_just_removed_is_whole_or_none(
    copy_live: bool, git: Parts, source: Path
) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    count = 2000
    inside(workspace).sh(f"for n in $(seq {count}); do echo $n >f$n; done")
    if not copy_live:
        leave(workspace)
    await workspace.lock.acquire()
    forking = asyncio.ensure_future(fork(git, copy_live=copy_live))
    removing = asyncio.ensure_future(git.worktrees.remove(UID, "acme"))
    while workspace.tree.exists() and len(list(workspace.tree.iterdir())) > count:  # noqa: ASYNC110
        await asyncio.sleep(0)
    workspace.lock.release()
    with pytest.raises(WorktreeNotFound):
        await forking
    assert await removing
    assert list(git.records) == []
    assert {path.name for path in (git.state / "git" / "layers").iterdir()} <= {EMPTY}


async def fork(git: Parts, *, copy_live: bool = False) -> Record:
    wanted = forks.Wanted(uid=OTHER, source=UID, snapshot="", branch="other", copy_live=copy_live)
    return await git.forks.fork(wanted, "acme")
