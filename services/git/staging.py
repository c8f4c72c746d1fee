"""Puts the files of a worktree into an index, as a commit of them would have them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.git.command import git
from services.git.errors import GitTimedOut
from services.git.status import Change, Entry
from services.git.workspace import Scratch, Workspace

_ATTEMPTS: Final = 200
_TIMEOUT: Final = 300
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


async def stage(
    workspace: Workspace, head: str, scratch: Scratch, entries: Sequence[Entry]
) -> tuple[set[bytes], list[Skipped]]:
    """Put files into the scratch's index; what git cannot take is found by halving."""
    paths = [entry.name for entry in entries]
    paths += [entry.old_path for entry in entries if entry.old_path]
    skipped: list[Skipped] = []
    where = workspace.where(head, scratch=scratch)
    command = git(where, "update-index", ["--add", "--remove", "--replace", "-z", "--stdin"])
    cell = workspace.cell(head, scratch=scratch)
    todo, attempts = [paths], 0
    while todo:
        part = todo.pop()
        attempts += 1
        if attempts > _ATTEMPTS:
            raise GitTimedOut("too many files cannot be read", command="update-index")
        stdin = b"\0".join(part) + b"\0"
        result = await workspace.cells.run(cell, command, stdin, timeout=_TIMEOUT)
        if result.code == 0:
            continue
        if len(part) == 1:
            skipped.append(Skipped(part[0], "the file cannot be read"))
            continue
        middle = len(part) // 2
        todo += [part[middle:], part[:middle]]
    staged = await _staged(workspace, head, scratch)
    known = staged | {one.path for one in skipped}
    skipped += [
        Skipped(entry.path, "git does not allow this path, or it is gone")
        for entry in entries
        if entry.work in (Change.UNTRACKED, Change.RENAMED) and entry.path not in known
    ]
    return staged, skipped


async def _staged(workspace: Workspace, head: str, scratch: Scratch) -> set[bytes]:
    where = workspace.where(head, scratch=scratch)
    cell = workspace.cell(head, scratch=scratch)
    options = ["--cached", "--name-only", "-z", "--no-renames"]
    command = git(where, "diff-index", options, values=[head or EMPTY_TREE])
    output = await workspace.cells.check(cell, command, limit=256 << 20)
    return {path for path in output.split(b"\0") if path}
