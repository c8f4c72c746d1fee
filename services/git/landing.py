"""Brings the objects of a commit into the repository, and moves the branch.

Little that is certainly sound is taken in by the cell of the repository itself, in one pack, as
many small files would take a file system longer. All else goes from the cell that sees the files
to a git that checks it, as that of a remote would.
"""

import asyncio
import os
import re
from contextlib import AsyncExitStack
from typing import Final

from services.git import changes
from services.git.beside import beside
from services.git.cell import timed_out_as
from services.git.changes import Planned
from services.git.command import Where, git
from services.git.draft import Made
from services.git.errors import CellLost, HeadMoved
from services.git.process import Result, close_all
from services.git.repository import head_ref
from services.git.transport import STORE
from services.git.workspace import Workspace

_UNPACK_LIMIT: Final = 500
"""Objects, above which a pack is kept as it is also where there shall be few."""
_UNPACK_BYTES: Final = 32 << 20
_TIMEOUT: Final = 300
_REFUSED: Final = re.compile(r"(?:error in|object) (?:blob )?([0-9a-f]{40}): (\w+)")


class Refused(Exception):
    """Git does not take a content: `object`, because of `rule`."""

    def __init__(self, result: Result) -> None:
        found = _REFUSED.search(result.errors)
        self.result = result
        self.object = found[1] if found else ""
        self.rule = found[2] if found else ""


async def land(workspace: Workspace, head: str, planned: Planned, made: Made) -> list[bytes]:
    """Bring in what is planned, and move the branch from `head` to what was made of it.

    Returns paths whose files changed meanwhile; then nothing has happened. Raises `Refused` and
    `HeadMoved`.
    """
    move = {"ref": head_ref(workspace.uid), "old": head, "new": made.commit.id}
    result = Result(code=1, output=b"", errors="the branch cannot be moved")
    partial = workspace.repository.partial
    # Where a filter left contents out, packs stay apart for good: there shall not be many.
    few = partial is not None and bool(partial.filter)
    if few or not planned.items or await _doubted(workspace, planned, made, move):
        result, unstable = await _checked(workspace, head, planned, made, move, few_packs=few)
        if unstable:
            return unstable
    if workspace.head == made.commit.id:
        return []
    if workspace.head != head:
        raise HeadMoved("the branch has moved", expected=head, actual=workspace.head)
    raise Refused(result)


async def _doubted(
    workspace: Workspace, planned: Planned, made: Made, move: dict[str, str]
) -> bool:
    """Whether git has to judge what is planned; then nothing has happened."""
    keeping = {**move, "commit": changes.text(made.data), "items": planned.items}
    with workspace.repository.writing():
        return bool(await workspace.repository.keep(keeping, timeout=_TIMEOUT))


async def _checked(
    workspace: Workspace,
    head: str,
    planned: Planned,
    made: Made,
    move: dict[str, str],
    *,
    few_packs: bool,
) -> tuple[Result, list[bytes]]:
    """How git took it, and paths whose files changed meanwhile."""
    small = planned.objects <= _UNPACK_LIMIT and planned.size <= _UNPACK_BYTES
    loose = few_packs and small
    name = "unpack-objects" if loose else "index-pack"
    taking = git(Where(git_dir=STORE), name, config=[("core.fsync", "none")] if loose else ())
    landing = {
        **move,
        "store": STORE,
        "argv": list(taking.argv),
        "environment": dict(taking.env),
        "loose": loose,
    }
    repository = workspace.repository
    reading, writing = os.pipe()
    source, pack = [writing], [reading]
    async with AsyncExitStack() as stack:
        stack.callback(close_all, source)
        stack.callback(close_all, pack)
        stack.enter_context(repository.writing())
        stack.enter_context(timed_out_as(name))
        await stack.enter_async_context(asyncio.timeout(_TIMEOUT))
        taken = await stack.enter_async_context(
            beside(repository.land(landing, pack, timeout=_TIMEOUT))
        )
        try:
            answer = await workspace.ask("send", head, [writing], commit=changes.text(made.data))
        except CellLost:
            answer = None
        close_all(source)
        return await taken, changes.unstable(answer) if answer is not None else []
