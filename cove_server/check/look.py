"""One look at everything, and the mending of what it found."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from cove_server.admin.database import Registry
from cove_server.admin.errors import Refused
from cove_server.check import leftovers, node
from cove_server.check.aside import Aside
from cove_server.check.environments import Environments
from cove_server.check.executions import Executions
from cove_server.check.finding import Finding
from cove_server.check.git import Git
from cove_server.places import Places
from services.git.cell import Cells
from services.provider.config import Config
from services.registry import mending

_AGAIN: Final = 1.0
"""Seconds until something that is on its way has arrived."""
_ROUNDS: Final = 5
"""What was mended may show something else."""
_BACKUP: Final = "Restore a backup: cove admin restore FILE --replace."


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    places: Places
    registry: Registry
    provider: Config
    cells: Cells
    deep: bool = False
    running: bool = False


@dataclass(frozen=True, slots=True)
class Mended:
    """What was done about a finding; nothing where it is still as it was."""

    finding: Finding
    done: str = ""
    problem: str = ""


async def look(asked: Asked) -> list[Finding]:
    """Everything that disagrees. While the suite runs: and still does a moment later.

    Raises `Refused` where it cannot be seen.
    """
    found = await _once(asked)
    if not asked.running or not found:
        return found
    await asyncio.sleep(_AGAIN)
    before = {each.key for each in found}
    return [each for each in await _once(asked) if each.key in before]


async def mend(asked: Asked) -> list[Mended]:
    """Mend all that can be, until a look finds nothing more of it. The suite is stopped."""
    done: dict[tuple[str, str], Mended] = {}
    for _ in range(_ROUNDS):
        new = [each for each in await look(asked) if each.key not in done]
        if not new:
            break
        for each in new:
            done[each.key] = await _mended(each)
    return list(done.values())


async def _mended(finding: Finding) -> Mended:
    if finding.mend is None:
        return Mended(finding)
    try:
        return Mended(finding, done=await finding.mend())
    except Exception as error:  # The others are mended all the same.
        return Mended(finding, problem=f"{type(error).__name__}: {error}")


async def _once(asked: Asked) -> list[Finding]:
    state = asked.places.state
    if not asked.registry.exists():
        raise Refused(f"{state} has no registry", "Name the state directory with --state.")
    try:
        found, seen = await asyncio.to_thread(_seen, asked)
    except sqlite3.Error as error:
        return [Finding("registry-damaged", "registry.db", str(error), remedy=_BACKUP)]
    if seen is None:
        return found
    if seen.environments and not (state / "git" / "worktrees").is_dir():
        raise Refused(
            f"{state}/git/worktrees is not there, and the registry has workspaces",
            "Mount what it was on, or restore a whole backup.",
        )
    return [*found, *[each async for each in _of_node(asked, seen)]]


def _seen(asked: Asked) -> tuple[list[Finding], node.Node | None]:
    """What is wrong with the registry alone; and the node, unless that is all there is to say."""
    with ExitStack() as stack:
        # The disk first: what is there and has a record then is no orphan.
        disk = node.look(asked.places.state)
        database = stack.enter_context(asked.registry.seen())
        found = [_of_registry(asked.registry, each) for each in mending.examine(database)]
        if any(each.kind == "registry-damaged" for each in found):
            return found, None
        return found, node.read(disk, database, running=asked.running)


def _of_registry(registry: Registry, each: mending.Disagreement) -> Finding:
    async def mend() -> str:
        await asyncio.to_thread(registry.mend, each.mend)
        return "set right"

    return Finding(each.kind, each.subject, each.found, mend if each.mend else None, _BACKUP)


async def _of_node(asked: Asked, seen: node.Node) -> AsyncIterator[Finding]:
    aside = Aside(seen.state)
    # First of all: what nobody knows of goes on writing.
    for each in await leftovers.sandboxes(seen, asked.places):
        yield each
    for each in leftovers.mounts(seen):
        yield each
    if not seen.running:
        for each in leftovers.leftovers(seen):
            yield each
        for each in leftovers.strays(seen, aside):
            yield each
        for each in leftovers.groups(asked.places):
            yield each
    for each in Environments(seen, asked.registry, asked.provider, aside).look():
        yield each
    async for each in Git(seen, asked.cells, aside).look(deep=asked.deep):
        yield each
    for each in await asyncio.to_thread(lambda: list(Executions(seen, aside).look())):
        yield each
