"""What differs in a worktree from the head of its branch."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from services.git.changes import raw
from services.git.workspace import Workspace

MAX_ENTRIES: Final = 10_000


class Change(Enum):
    """What happened to a path."""

    MODIFIED = "M"
    ADDED = "A"
    DELETED = "D"
    RENAMED = "R"
    TYPE_CHANGED = "T"
    UNTRACKED = "?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A path that differs."""

    path: bytes
    work: Change
    old_path: bytes = b""
    submodule: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What differs, in the order of paths; `total` counts also what is not in `entries`."""

    entries: Sequence[Entry]
    total: int


async def read(workspace: Workspace, head: str, *, limit: int = MAX_ENTRIES) -> Found:
    """At most `limit` entries, or as many as fit into an answer. Call it locked.

    Renames are found where files vanished and others appeared, unless very many did.
    """
    answer = await workspace.ask("changes", head, renames=limit > 0, limit=limit)
    entries = [
        Entry(
            path=raw(path),
            work=Change(state),
            old_path=raw(old),
            submodule=bool(submodule),
        )
        for path, state, old, submodule in answer["entries"][:limit]
    ]
    return Found(entries, max(int(answer["total"]), len(entries)))
