"""What differs in a worktree, as the cell that looks at it tells. None of that is believed."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from servicekit.disk import DiskFull
from services.git.command import is_commit_id
from services.git.errors import OutputTooLarge, TooLarge
from services.git.within import sound
from services.git.workspace import Workspace

EMPTY_TREE: Final = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""What git knows an empty directory by, also where no such object is."""
UNSTABLE: Final = "the file changes while it is read"
_LITTLE: Final = 8 << 20
"""Bytes that are written for as long as a diff takes, however full the disk is."""
ATTEMPTS: Final = 3
"""Until a file that changes is left out."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A path that could not be committed, and why."""

    path: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Planned:
    """A commit to be. Its objects are with the cell, until that is asked for something else."""

    tree: str
    changed: int
    """Paths in which it differs from the head."""
    objects: int
    size: int
    """Bytes of new contents."""
    skipped: Sequence[Skipped]
    items: Sequence[Any] = ()
    """All objects, where they are little and that was asked for."""


async def plan(
    workspace: Workspace,
    head: str,
    paths: Sequence[bytes],
    unwanted: Mapping[bytes, str],
    *,
    told: bool = False,
) -> Planned:
    """Plan a commit of what differs at or below `paths`, without what is unwanted, and why."""
    answer = await workspace.ask(
        "plan",
        head,
        paths=[text(path) for path in paths],
        unwanted={text(path): reason for path, reason in unwanted.items()},
        told=told,
    )
    tree = str(answer["tree"])
    if not is_commit_id(tree):
        raise ValueError("the cell named no tree")
    return Planned(
        tree=tree,
        changed=int(answer["changed"]),
        objects=int(answer["objects"]),
        size=int(answer["bytes"]),
        skipped=[Skipped(raw(path), str(reason)) for path, reason in answer["skipped"]],
        items=_items(answer["items"]),
    )


async def write_tree(
    workspace: Workspace, head: str, paths: Sequence[bytes], folder: str, most: int = 0
) -> Planned:
    """Write the tree of the files at or below `paths`; those that never hold still are left out.

    Raises `TooLarge` for more than `most` bytes of new contents, if that is given, and `DiskFull`
    for more than there is room for: nobody shall fill a disk by looking.
    """
    unwanted: dict[bytes, str] = {}
    attempt = 0
    while True:
        planned = await plan(workspace, head, paths, unwanted)
        if most and planned.size > most:
            raise TooLarge(f"more than {most} bytes are not committed")
        _check_room(workspace, planned.size)
        still = await write(workspace, head, folder)
        if not still:
            return planned
        attempt += 1
        if attempt >= ATTEMPTS:
            unwanted |= dict.fromkeys(still, UNSTABLE)


def _check_room(workspace: Workspace, size: int) -> None:
    """That a tenth of the disk is free still, unless it is about little."""
    found = os.statvfs(workspace.paths.scratch)
    if size > max(_LITTLE, (found.f_bavail - found.f_blocks // 10) * found.f_frsize):
        raise DiskFull(f"there is no room for {size} bytes of the worktree to be compared")


async def write(workspace: Workspace, head: str, folder: str) -> list[bytes]:
    """Have the planned objects written; returns paths whose files changed meanwhile."""
    return unstable(await workspace.ask("write", head, folder=folder))


def unstable(answer: Mapping[str, Any]) -> list[bytes]:
    """Paths whose files changed while they were read."""
    return [raw(path) for path in answer["unstable"]]


def _items(told: Any) -> Sequence[Any]:
    """No more than a repository would look at: what is much goes another way."""
    if not isinstance(told, list) or len(told) > sound.MAX_OBJECTS:
        return ()
    texts = [each for one in told if isinstance(one, list) for each in one]
    if not all(isinstance(each, str) for each in texts) or len(texts) != 2 * len(told):
        return ()
    return told if sum(map(len, texts)) <= 2 * sound.MAX_BYTES else ()


def text(path: bytes) -> str:
    """A path as it is sent to a cell."""
    return path.decode("latin-1")


def raw(path: Any) -> bytes:
    """A path as a cell sent it. Raises `OutputTooLarge` for what is none."""
    if not isinstance(path, str) or "\0" in path or len(path) > 1 << 16:
        raise OutputTooLarge("a path is too long", command="status")
    return path.encode("latin-1", "replace")
