"""Ends git where it waits for a pipe that a program put in place of a file git reads by itself.

A worktree may hold a FIFO called .gitignore or .gitattributes, and git opens
both wherever they lie. Walking a tree for them costs as much as a status, so
that is done only when git takes its time.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from servicekit.errors import ServiceError
from services.git.beside import beside
from services.git.cell import Cell
from services.git.command import Command
from services.git.errors import TreeBlocks
from services.git.workspace import Workspace

_PATIENCE: Final = 2.0
_SEARCH_TIMEOUT: Final = 30
_NAMES: Final = (".gitignore", ".gitattributes")
_FIND: Final = Command(
    name="find",
    argv=(
        *("find", ".", "-type", "p", "("),
        *("-name", _NAMES[0], "-o", "-name", _NAMES[1]),
        *(")", "-print0", "-quit"),
    ),
    env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
)


@asynccontextmanager
async def unblocked(workspace: Workspace, cell: Cell) -> AsyncIterator[None]:
    """Break off the block if it lasts and such a pipe is in the tree. Raises `TreeBlocks`.

    `cell` sees the tree as its working directory.
    """
    found: list[str] = []
    try:
        async with (
            asyncio.timeout(None) as bound,
            beside(_search(workspace, cell, bound, found)),
        ):
            yield
    except TimeoutError:
        if not found:
            raise
        raise TreeBlocks(
            "git waits for a pipe in the worktree",
            path=found[0],
            remedy="Remove it: git reads every file of this name.",
        ) from None


async def _search(
    workspace: Workspace, cell: Cell, bound: asyncio.Timeout, found: list[str]
) -> None:
    while not found:
        await asyncio.sleep(_PATIENCE)
        with suppress(ServiceError):
            found += await _pipes(workspace, cell)
    bound.reschedule(asyncio.get_running_loop().time())


async def _pipes(workspace: Workspace, cell: Cell) -> Sequence[str]:
    # Directories that cannot be read make it fail; git does not read them either.
    result = await workspace.cells.run(cell, _FIND, timeout=_SEARCH_TIMEOUT)
    paths = result.output.decode("utf-8", "replace").split("\0")
    return [path.removeprefix("./") for path in paths if path]
