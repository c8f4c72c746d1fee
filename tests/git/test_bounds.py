"""What files of a worktree may try on git's memory and time."""

import asyncio
import os
import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path

import pytest

from services.git import diff, status
from services.git.cell import Cell
from services.git.command import Command
from services.git.commit import Draft
from services.git.diff import End, File
from services.git.errors import TooLarge, TreeBlocks, WorktreeNotFound
from services.git.workspace import Workspace
from tests.git.parts import Parts, own, run_git, write

LIMIT_KIB = (2 << 30) // 1024


async def events(workspace: Workspace, since: str) -> list[diff.Event]:
    stream = diff.of_work(workspace, since, [], diff.Limits())
    async with aclosing(stream) as found:
        return [event async for event in found]


async def test_every_cell_has_a_limit_of_memory(git: Parts) -> None:
    command = Command(name="sh", argv=("sh", "-c", "ulimit -v"), env={"PATH": "/usr/bin:/bin"})
    result = await git.cells.run(Cell(identity=git.cells.sandbox), command)
    assert int(result.output) == LIMIT_KIB


@pytest.mark.parametrize("name", [".gitignore", "src/.gitignore"])
async def test_a_sparse_gitignore_is_an_error_that_tells_the_remedy(
    name: str, git: Parts, source: Path
) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    os.truncate(write(workspace, name, ""), 3 << 30)
    with pytest.raises(TooLarge) as caught:
        await status.read(workspace, workspace.head)
    assert ".gitignore" in caught.value.remedy
    with pytest.raises(TooLarge):
        await git.committer.commit(record, workspace, Draft(message="x"))
    assert await git.worktrees.remove(record.uid, record.tenant)


async def test_a_large_file_of_lines_is_binary_in_a_diff(git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    write(workspace, "README", b"\n" * (17 << 20))
    file, *_, end = await events(workspace, record.base_commit)
    assert isinstance(file, File)
    assert (file.path, file.binary) == (b"README", True)
    assert isinstance(end, End)


async def test_a_diff_that_needs_too_much_memory_says_so(git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    # By its attribute it is text, whatever its size.
    write(workspace, ".gitattributes", "* diff\n")
    write(workspace, "README", b"\n" * (100 << 20))
    with pytest.raises(TooLarge):
        await events(workspace, record.base_commit)
    done = await git.committer.commit(record, workspace, Draft(message="x"))
    assert run_git(workspace.repository.path, "cat-file", "-s", f"{done.commit}:README")


@pytest.mark.parametrize("name", [".gitignore", "src/.gitattributes"])
async def test_a_pipe_that_git_reads_is_an_error_that_names_it(
    name: str, git: Parts, source: Path
) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    os.mkfifo(workspace.tree / name)
    own(workspace, workspace.tree / name)
    write(workspace, "src/a.txt", "two\none\n")  # Its size is kept, so it is read.
    began = time.monotonic()
    with pytest.raises(TreeBlocks) as caught:
        await git.committer.commit(record, workspace, Draft(message="x"))
    assert name in str(caught.value.metadata)
    with pytest.raises(TreeBlocks):
        await events(workspace, record.base_commit)
    with pytest.raises(TreeBlocks):
        await git.worktrees.remove(record.uid, record.tenant, keep_unsaved=True)
    assert time.monotonic() - began < 30
    assert await git.worktrees.remove(record.uid, record.tenant)


async def test_a_removal_at_any_price_waits_for_no_look_at_the_files(
    git: Parts, source: Path
) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    os.mkfifo(workspace.tree / ".gitignore")
    own(workspace, workspace.tree / ".gitignore")
    careful = asyncio.create_task(
        git.worktrees.remove(record.uid, record.tenant, keep_unsaved=True)
    )
    await git.cells.next("status")
    async with asyncio.timeout(1.5):
        assert await git.worktrees.remove(record.uid, record.tenant)
    with pytest.raises(WorktreeNotFound):
        await careful
    assert not workspace.directory.exists()


async def test_other_pipes_and_time_alone_end_nothing(git: Parts, source: Path) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    os.mkfifo(workspace.tree / "pipe")
    own(workspace, workspace.tree / "pipe")
    cell = workspace.cell(workspace.head)
    slow = Command(name="sh", argv=("sleep", "3"), env={"PATH": "/usr/bin:/bin"})
    async with unblocked(workspace, cell):
        assert (await git.cells.run(cell, slow)).code == 0
    assert not (await status.read(workspace, workspace.head)).entries


async def test_a_tree_six_thousand_deep_is_looked_at_and_removed(git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    deep = "import os\nfor _ in range(6000): os.mkdir('d'); os.chdir('d')\n"
    deep += "open('file', 'w').close(); os.chmod('.', 0)\n"
    made = [sys.executable, "-c", deep]
    who = workspace.cells.sandbox
    subprocess.run(made, cwd=workspace.tree, check=True)
    if os.geteuid() == 0:  # An ordinary user's cells and sandboxes are that user's own.
        subprocess.run(["chown", "-R", f"{who.uid}:{who.gid}", workspace.tree / "d"], check=True)
    try:
        write(workspace, "new", "x")
        entries = (await status.read(workspace, workspace.head)).entries
        assert [entry.path for entry in entries] == [b"new"]
        await git.committer.commit(record, workspace, Draft(message="x"))
        # As after a service that ended while it made the worktree.
        await workspace.lay_out()
        assert not (workspace.tree / "d").exists()
        subprocess.run(made, cwd=workspace.tree, check=True)
        assert await git.worktrees.remove(record.uid, record.tenant)
        assert not workspace.directory.exists()
    finally:
        # What is left of it, pytest could not remove, nor could its owner while nothing is allowed.
        subprocess.run(["chmod", "-Rf", "u+rwx", workspace.directory], check=False)
        subprocess.run(["rm", "-rf", workspace.directory], check=True)
