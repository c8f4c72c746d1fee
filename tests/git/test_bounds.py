"""What files of a worktree may try on git's memory and time."""

import os
from contextlib import aclosing

import pytest

from services.git import diff, status
from services.git.cell import Cell
from services.git.command import Command
from services.git.commit import Draft
from services.git.diff import End, File
from services.git.errors import TooLarge
from services.git.workspace import Workspace
from tests.git.parts import Parts, run_git, write

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
    name: str, git: Parts, source: os.PathLike[str]
) -> None:
    await git.create(str(source))
    record, workspace = await git.ready()
    os.truncate(write(workspace, name, ""), 3 << 30)
    with pytest.raises(TooLarge) as caught:
        await status.read(workspace, workspace.head)
    assert ".gitignore" in caught.value.remedy
    with pytest.raises(TooLarge):
        await git.committer.commit(record, workspace, Draft(message="x"))
    assert await git.worktrees.remove(record.uid, record.tenant)


async def test_a_large_file_of_lines_is_binary_in_a_diff(
    git: Parts, source: os.PathLike[str]
) -> None:
    await git.create(str(source))
    record, workspace = await git.ready()
    write(workspace, "README", b"\n" * (17 << 20))
    file, *_, end = await events(workspace, record.base_commit)
    assert isinstance(file, File)
    assert (file.path, file.binary) == (b"README", True)
    assert isinstance(end, End)


async def test_a_diff_that_needs_too_much_memory_says_so(
    git: Parts, source: os.PathLike[str]
) -> None:
    await git.create(str(source))
    record, workspace = await git.ready()
    # By its attribute it is text, whatever its size.
    write(workspace, ".gitattributes", "* diff\n")
    write(workspace, "README", b"\n" * (100 << 20))
    with pytest.raises(TooLarge):
        await events(workspace, record.base_commit)
    done = await git.committer.commit(record, workspace, Draft(message="x"))
    assert run_git(workspace.repository.path, "cat-file", "-s", f"{done.commit}:README")
