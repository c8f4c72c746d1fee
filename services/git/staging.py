"""Puts the files of a worktree into an index, as a commit of them would have them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.git.cell import Cell, Cells
from services.git.command import Command, check_id, git, together
from services.git.errors import GitTimedOut
from services.git.status import Change, Entry
from services.git.workspace import Scratch, Workspace

_ATTEMPTS: Final = 200
_TIMEOUT: Final = 300
_OUTPUT_LIMIT: Final = 256 << 20
EMPTY_TREE: Final = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""What git knows an empty directory by, also where no such object is."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A path that could not be committed, and why."""

    path: bytes
    reason: str


def select(entries: Sequence[Entry], paths: Sequence[bytes]) -> tuple[list[Entry], list[Skipped]]:
    """The entries at or below `paths` that can be committed, and those that cannot."""
    roots = [path.strip(b"/").removeprefix(b"./") for path in paths]

    def is_wanted(path: bytes) -> bool:
        return not roots or any(
            root in (b"", b".") or path == root or path.startswith(root + b"/") for root in roots
        )

    chosen = [
        entry
        for entry in entries
        if is_wanted(entry.name) or (entry.old_path and is_wanted(entry.old_path))
    ]
    skipped = [Skipped(one.path, "a repository of its own") for one in chosen if one.submodule]
    return [one for one in chosen if not one.submodule], skipped


@dataclass(frozen=True, slots=True)
class Staged:
    """The tree that was made, the paths in which it differs from the head, and what it lacks."""

    tree: str
    paths: set[bytes]
    skipped: list[Skipped]


async def stage(
    workspace: Workspace, head: str, scratch: Scratch, entries: Sequence[Entry]
) -> Staged:
    """Put files into the scratch's index; what git cannot take is found by halving."""
    paths = [entry.name for entry in entries]
    paths += [entry.old_path for entry in entries if entry.old_path]
    where = workspace.where(head, scratch=scratch)
    update = git(where, "update-index", ["--add", "--remove", "--replace", "-z", "--stdin"])
    options = ["--cached", "--name-only", "-z", "--no-renames"]
    written = (
        git(where, "write-tree"),
        git(where, "diff-index", options, values=[head or EMPTY_TREE]),
    )
    cell, cells = workspace.cell(head, scratch=scratch), workspace.cells
    stdin = b"".join(path + b"\0" for path in paths)
    # Mostly all goes well: then one cell is enough.
    result = await cells.run(
        cell, together(update, *written), stdin, timeout=_TIMEOUT, limit=_OUTPUT_LIMIT
    )
    output, skipped = result.output, list[Skipped]()
    if result.code != 0:
        skipped = await _stage_in_parts(cells, cell, update, paths)
        output = await cells.check(cell, together(*written), timeout=_TIMEOUT, limit=_OUTPUT_LIMIT)
    tree, _, names = output.partition(b"\n")
    staged = {path for path in names.split(b"\0") if path}
    known = staged | {one.path for one in skipped}
    skipped += [
        Skipped(entry.path, "git does not allow this path, or it is gone")
        for entry in entries
        if entry.work in (Change.UNTRACKED, Change.RENAMED) and entry.path not in known
    ]
    return Staged(check_id(tree), staged, skipped)


async def _stage_in_parts(
    cells: Cells, cell: Cell, update: Command, paths: list[bytes]
) -> list[Skipped]:
    skipped: list[Skipped] = []
    todo, attempts = [paths], 0
    while todo:
        part = todo.pop()
        attempts += 1
        if attempts > _ATTEMPTS:
            raise GitTimedOut("too many files cannot be read", command=update.name)
        stdin = b"".join(path + b"\0" for path in part)
        result = await cells.run(cell, update, stdin, timeout=_TIMEOUT)
        if result.code == 0:
            continue
        if len(part) == 1:
            skipped.append(Skipped(part[0], "the file cannot be read"))
            continue
        middle = len(part) // 2
        todo += [part[middle:], part[:middle]]
    return skipped
