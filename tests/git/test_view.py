"""What a program in the sandbox sees of git."""

from pathlib import Path

from services.git.cell import Bind, Cell
from services.git.command import Command
from services.git.commit import Draft
from tests.git.parts import Parts, write


async def inside(git: Parts, *arguments: str) -> str:
    """Run plain git in a sandbox with the mounts that provider makes."""
    _, workspace = await git.ready()
    cell = Cell(
        identity=git.cells.sandbox,
        binds=[
            Bind(source=workspace.tree, target="/workspace", writable=True),
            Bind(source=workspace.view, target="/workspace/.git"),
            Bind(source=workspace.repository.objects, target="/.cove/objects"),
        ],
        cwd="/workspace",
    )
    env = {"PATH": "/usr/bin:/bin", "HOME": "/tmp"}
    result = await git.cells.run(
        cell, Command(name=arguments[0], argv=("git", *arguments), env=env)
    )
    assert result.code == 0, result.errors
    return result.output.decode()


async def test_git_works_inside_read_only(git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    write(workspace, "README", "changed\n")
    assert await inside(git, "status", "--short", "--branch") == "## work\n M README\n"
    assert "+changed" in await inside(git, "diff")
    assert "Change" in await inside(git, "log", "--oneline", "origin/main")
    done = await git.committer.commit(record, workspace, Draft(message="From outside"))
    assert await inside(git, "status", "--short") == ""
    assert (await inside(git, "rev-parse", "HEAD", "work")).split() == [done.commit] * 2
    await inside(git, "fsck")
