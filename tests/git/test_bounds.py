"""What files of a worktree may try on git's memory and time."""

import asyncio
import os
import subprocess
import time
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from services.git import diff, status
from services.git.cell import Cell
from services.git.changes import Skipped
from services.git.command import Command
from services.git.diff import End, File
from services.git.draft import Draft
from services.git.errors import CellLost, TooLarge, UnsavedWork, WorktreeNotFound
from services.git.record import State
from services.git.workspace import Workspace
from tests.git.parts import Parts, each_mode, inside, leave, make_source, run_git, write

mode = each_mode
pytestmark = pytest.mark.long
LIMIT_KIB = (2 << 30) // 1024


async def events(workspace: Workspace, since: str) -> list[diff.Event]:
    stream = diff.of_work(workspace, since, [], diff.Limits())
    async with aclosing(stream) as found:
        return [event async for event in found]


async def test_every_cell_has_a_limit_of_memory(git: Parts) -> None:
    command = Command(name="sh", argv=("sh", "-c", "ulimit -v"), env={"PATH": "/usr/bin:/bin"})
    result = await git.cells.run(Cell(identity=git.cells.sandbox), command)
    assert int(result.output) == LIMIT_KIB


async def looked(workspace: Workspace) -> list[bytes]:
    """The paths that differ."""
    async with workspace.lock:
        return [entry.path for entry in (await status.read(workspace, workspace.head)).entries]


@pytest.mark.parametrize("name", [".gitignore", "src/.gitignore", ".gitattributes", "README"])
async def test_a_sparse_file_is_left_out_in_no_time(name: str, git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    stretch(write(workspace, name, ""))
    write(workspace, "new", "x")
    inside(workspace).run("rm", "src/a.txt")  # So that renames are looked for.
    began = time.monotonic()
    assert set(await looked(workspace)) == {os.fsencode(name), b"new", b"src/a.txt"}
    assert isinstance((await events(workspace, record.base_commit))[-1], End)
    done = await git.committer.commit(record, workspace, Draft(message="x"))
    assert [one.path for one in done.skipped] == [os.fsencode(name)]
    assert "2 GiB" in done.skipped[0].reason
    assert await looked(workspace) == [os.fsencode(name)]
    assert time.monotonic() - began < 30
    leave(workspace)
    with pytest.raises(UnsavedWork):
        await git.worktrees.remove(record.uid, record.tenant, keep_unsaved=True)
    assert await git.worktrees.remove(record.uid, record.tenant)


def stretch(path: Path) -> None:
    """Make a file as large as the file system lets it be, up to 8 TiB."""
    for size in (8 << 40, 15 << 40 >> 3, 3 << 30):
        with suppress(OSError):
            os.truncate(path, size)
            return
    raise AssertionError("no sparse files here")


async def test_many_large_files_do_not_make_a_status_slow(git: Parts, source: Path) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    inside(workspace).sh("for n in 1 2 3 4 5 6 7 8; do truncate -s 500G large$n; done; rm README")
    began = time.monotonic()
    assert len(await looked(workspace)) == 9
    assert time.monotonic() - began < 30


async def test_a_gitignore_that_was_committed_too_large_excludes_nothing(
    git: Parts, tmp_path: Path
) -> None:
    source = make_source(tmp_path / "large", {"README": "x"})
    with (source / ".gitignore").open("wb") as file:
        file.write(b"new\n")
        file.truncate(20 << 20)
    run_git(source, "-c", "core.bigFileThreshold=1m", "add", "-A")
    run_git(source, "commit", "-qm", "Large")
    await git.create(source)
    _, workspace = await git.ready()
    write(workspace, "new", "x")
    assert await looked(workspace) == [b"new"]


async def test_a_large_file_of_lines_is_binary_in_a_diff(git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    # By its attribute it would be text, whatever its size.
    write(workspace, ".gitattributes", "* diff\n")
    write(workspace, "README", b"\n" * (100 << 20))
    _, *_, file, end = await events(workspace, record.base_commit)
    assert isinstance(file, File)
    assert (file.path, file.binary) == (b"README", True)
    assert isinstance(end, End)
    done = await git.committer.commit(record, workspace, Draft(message="x"))
    assert run_git(workspace.repository.path, "cat-file", "-s", f"{done.commit}:README")


async def test_a_diff_that_needs_too_much_memory_says_so(git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    write(workspace, "README", b"\n" * (15 << 20))
    done = await git.committer.commit(record, workspace, Draft(message="x"))
    write(workspace, "README", b"x\n" * (7 << 20))
    with pytest.raises(TooLarge):
        await events(workspace, done.commit)
    assert await looked(workspace) == [b"README"]


@pytest.mark.parametrize(
    "make", ["mkfifo {0}", "mkdir {0}", "ln -s /dev/zero {0}", "mkdir {0}; mkfifo {0}/.gitignore"]
)
@pytest.mark.parametrize("name", [".gitignore", "src/.gitignore", "src/.gitattributes"])
async def test_what_only_looks_like_a_file_of_rules_holds_nothing_up(
    name: str, make: str, git: Parts, source: Path
) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    inside(workspace).sh(make.format(name))
    write(workspace, "src/a.txt", "two\none\n")  # Its size is kept, so it is read.
    write(workspace, "src/new", "x")
    link = [os.fsencode(name)] if "ln" in make else []
    began = time.monotonic()
    assert set(await looked(workspace)) == {b"src/a.txt", b"src/new", *link}
    assert isinstance((await events(workspace, record.base_commit))[-1], End)
    done = await git.committer.commit(record, workspace, Draft(message="x"))
    assert list(done.skipped) == []
    assert await looked(workspace) == []
    assert time.monotonic() - began < 30


async def test_files_that_became_pipes_are_told_and_left_as_they_were(
    git: Parts, source: Path
) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    inside(workspace).sh("rm README src/a.txt; mkfifo README; mkdir src/a.txt; mkfifo src/a.txt/x")
    write(workspace, "new", "x")
    assert await looked(workspace) == [b"README", b"new", b"src/a.txt"]
    done = await git.committer.commit(record, workspace, Draft(message="x"))
    assert list(done.skipped) == [Skipped(b"README", "neither a file nor a symlink")]
    listed = run_git(workspace.repository.path, "ls-tree", "-r", "--name-only", done.commit)
    assert listed == "README\nnew"


async def test_a_removal_at_any_price_waits_for_no_look_at_the_files(
    git: Parts, source: Path
) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    careful = asyncio.create_task(
        git.worktrees.remove(record.uid, record.tenant, keep_unsaved=True)
    )
    await git.cells.asked("changes")
    assert await git.worktrees.remove(record.uid, record.tenant)
    with pytest.raises(WorktreeNotFound):
        await careful
    assert not workspace.paths.directory.exists()


async def test_what_nobody_may_read_is_neither_committed_nor_removed(
    git: Parts, source: Path
) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    inside(workspace).sh(
        "mkdir closed; echo x >closed/file; echo x >secret; echo y >new\nchmod 0 closed secret src"
    )
    done = await git.committer.commit(record, workspace, Draft(message="x"))
    listed = run_git(workspace.repository.path, "ls-tree", "-r", "--name-only", done.commit)
    assert listed == "README\nnew\nsrc/a.txt"
    assert b"secret" in {one.path for one in done.skipped}
    inside(workspace).sh("chmod 755 closed src; chmod 644 secret")
    assert await looked(workspace) == [b"closed/file", b"secret"]


async def test_a_long_status_is_cut_and_counted(git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    inside(workspace).run(
        "/usr/bin/python3", "-c", "for n in range(12_000): open(f'new-{n:05}', 'w').close()"
    )
    async with workspace.lock:
        found = await status.read(workspace, workspace.head)
    assert (len(found.entries), found.total) == (10_000, 12_000)
    assert [found.entries[0].path, found.entries[-1].path] == [b"new-00000", b"new-09999"]
    await git.committer.commit(record, workspace, Draft(message="x"))
    assert await looked(workspace) == []


async def test_a_status_of_long_paths_is_cut_and_counted(git: Parts, source: Path) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    script = "import os\nfor n in range(15): os.mkdir('d' * 250); os.chdir('d' * 250)\n"
    script += "for n in range(9_500): open(f'{n:0200}', 'w').close()\n"
    inside(workspace).run("/usr/bin/python3", "-c", script)
    async with workspace.lock:
        found = await status.read(workspace, workspace.head)
    assert found.total == 9_500
    assert 5_000 < len(found.entries) < 9_500


async def test_a_tree_six_thousand_deep_is_looked_at_and_removed(git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    deep = "import os\nfor _ in range(6000): os.mkdir('d'); os.chdir('d')\n"
    deep += "open('file', 'w').close(); os.chmod('.', 0)\n"
    try:
        inside(workspace).run("/usr/bin/python3", "-c", deep)
        write(workspace, "new", "x")
        assert await looked(workspace) == [b"new"]
        await git.committer.commit(record, workspace, Draft(message="x"))
        leave(workspace)
        # As after a service that ended while it made the worktree.
        await git.records.keep(replace(record, state=State.CREATING))
        await git.create(source)
        _, workspace = await git.ready()
        assert not (workspace.tree / "d").exists()
        inside(workspace).run("/usr/bin/python3", "-c", deep)
        leave(workspace)
        assert await git.worktrees.remove(record.uid, record.tenant)
        assert not workspace.paths.directory.exists()
    finally:
        # What is left of it, pytest could not remove, nor could its owner while nothing is allowed.
        directory = workspace.paths.directory
        subprocess.run(["chmod", "-Rf", "u+rwx", directory], check=False)
        subprocess.run(["rm", "-rf", directory], check=True)


async def test_a_commit_of_a_tree_too_deep_is_told(git: Parts, source: Path) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    script = """
import subprocess
put = lambda *a, data: subprocess.run(["git", "hash-object", "-w", "--stdin", *a], input=data,
    stdout=subprocess.PIPE, check=True).stdout.decode().strip()
import hashlib, zlib, os
tree = put(data=b"x")
line = b"100644 a\\0"
for n in range(3_000):
    data = line + bytes.fromhex(tree)
    whole = b"tree %d\\0" % len(data) + data
    tree = hashlib.sha1(whole).hexdigest()
    os.makedirs(".git/objects/" + tree[:2], exist_ok=True)
    with open(f".git/objects/{tree[:2]}/{tree[2:]}", "wb") as file:
        file.write(zlib.compress(whole, 1))
    line = b"40000 d\\0"
print(tree)
"""
    program = inside(workspace)
    tree = program.run("/usr/bin/python3", "-c", script).strip()
    program.git("update-ref", "HEAD", program.git("commit-tree", "-m", "x", tree))
    began = time.monotonic()
    _, workspace = await git.ready()
    with suppress(TooLarge, CellLost):
        await looked(workspace)
    assert time.monotonic() - began < 30
    program.git("reset", "-q", "--hard", "origin/main")
    await git.ready()
    assert await looked(workspace) == []
