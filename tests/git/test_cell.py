"""What a cell sees, and what it does not."""

import asyncio
import time
from pathlib import Path

import pytest

from services.git.cell import Bind, Cell
from services.git.command import Command
from services.git.errors import CellUnavailable
from services.git.remote import Rules
from tests.git.parts import OTHER, UID, Parts, parts, write


async def run(git: Parts, cell: Cell, script: str) -> str:
    """What the script prints in the cell."""
    command = Command(name="sh", argv=("sh", "-c", script), env={"PATH": "/usr/bin:/bin"})
    return (await git.cells.run(cell, command)).output.decode()


async def test_a_cell_sees_one_worktree_and_not_where_all_of_them_are(
    git: Parts, source: Path
) -> None:
    await git.create(source, UID, branch="a")
    await git.create(source, OTHER, branch="b")
    _, workspace = await git.ready()
    write(workspace, "new", "")
    tree = Bind(source=workspace.tree, target="/run/cell/tree")
    for identity in (git.cells.sandbox, git.cells.keeper):
        cell = Cell(identity=identity, binds=[tree])
        assert await run(git, cell, "ls -A /sys 2>/dev/null") == ""
        assert await run(git, cell, f"find / -name {OTHER} 2>/dev/null") == ""
        assert "new" in await run(git, cell, "ls /run/cell/tree")


async def test_a_cell_gets_no_descriptor_and_no_right_of_the_service(git: Parts) -> None:
    cell = Cell(identity=git.cells.sandbox)
    descriptors = await run(git, cell, "cd /proc/self/fd && echo *")
    assert descriptors.split() == ["0", "1", "2", "3"]  # The last one is the shell's own.
    rights = await run(git, cell, "grep -E '^(Cap|NoNewPrivs)' /proc/self/status")
    values = dict(line.split(":\t") for line in rights.splitlines())
    assert values.pop("NoNewPrivs") == "1"
    assert {int(value, 16) for value in values.values()} == {0}
    assert (await run(git, cell, "umask")).strip() == "0022"


async def test_a_directory_from_elsewhere_is_given_to_no_cell(git: Parts, tmp_path: Path) -> None:
    if not git.cells.privileged:
        pytest.skip("an ordinary user's cells are given paths as they are")
    cell = Cell(identity=git.cells.sandbox, binds=[Bind(source=tmp_path, target="/x")])
    with pytest.raises(ValueError, match="elsewhere"):
        await run(git, cell, "true")


async def test_parts_that_are_closed_and_opened_again_have_cells(git: Parts, source: Path) -> None:
    await git.create(source)
    async with parts(git.state, Rules(local_roots=[Path("/")])) as again:
        assert await again.cells.probe()
    assert await git.cells.probe()
    with pytest.raises(CellUnavailable):
        async with parts(git.state, Rules(), bwrap=Path("/nonexistent/bin/bwrap")) as broken:
            await broken.cells.probe()


async def test_a_cell_that_is_ended_while_it_is_made_leaves_nothing(
    git: Parts,
) -> None:
    """At whatever point: bubblewrap takes some 10 ms until it dies with its parent."""
    command = Command(
        name="sleep", argv=("sleep", f"1000.{time.monotonic_ns()}"), env={"PATH": "/usr/bin:/bin"}
    )
    cell = Cell(identity=git.cells.sandbox)
    for round_ in range(150):
        async with git.cells.started(cell, command) as running:
            loop = asyncio.get_running_loop()
            until = loop.time() + round_ * 0.0002
            while loop.time() < until:
                pass
            running.kill()
    assert await eventually_none(command.argv[1])


async def eventually_none(word: str) -> bool:
    """Whether no process has the word among its arguments, soon after it was killed."""
    for _ in range(3000):
        if not any(word.encode() in arguments_of(each) for each in Path("/proc").iterdir()):
            return True
        await asyncio.sleep(0.01)
    return False


def arguments_of(process: Path) -> bytes:
    """Nothing if it has ended."""
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
