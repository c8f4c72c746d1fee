"""What differs in a worktree from the head of its branch."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from services.git.command import git
from services.git.workspace import Scratch, Workspace

_RENAME_LIMIT: Final = 1000
_OUTPUT_LIMIT: Final = 64 << 20


class Change(Enum):
    """What happened to a path, on one of the two sides."""

    NONE = "."
    MODIFIED = "M"
    ADDED = "A"
    DELETED = "D"
    RENAMED = "R"
    TYPE_CHANGED = "T"
    UNMERGED = "U"
    UNTRACKED = "?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A path that differs: the index against the head, and the files against the index."""

    path: bytes
    index: Change = Change.NONE
    work: Change = Change.NONE
    old_path: bytes = b""
    submodule: bool = False

    @property
    def name(self) -> bytes:
        """The path without the slash that marks an embedded repository."""
        return self.path.rstrip(b"/")


async def read(workspace: Workspace, head: str) -> list[Entry]:
    """All entries, in the order of their paths. Call it locked.

    Renames are found where files vanished and others appeared, unless very many did.
    """
    await workspace.ensure_index(head)
    command = git(workspace.where(head), "status", ["--untracked-files=all", "--no-renames"])
    output = await workspace.cells.check(
        workspace.cell(head), command, timeout=120, limit=_OUTPUT_LIMIT
    )
    entries = {entry.path: entry for entry in parse(output)}
    new = [entry.path for entry in entries.values() if _is_new(entry)]
    gone = sum(entry.work is Change.DELETED for entry in entries.values())
    if new and gone and max(len(new), gone) <= _RENAME_LIMIT:
        async with workspace.scratch(head) as scratch:
            await intend(workspace, head, scratch, new)
            for renamed in await _renames(workspace, head, scratch):
                if renamed.path in entries and renamed.old_path in entries:
                    del entries[renamed.old_path]
                    entries[renamed.path] = renamed
    return sorted(entries.values(), key=lambda entry: entry.path)


def _is_new(entry: Entry) -> bool:
    return entry.work is Change.UNTRACKED and not entry.submodule


async def intend(workspace: Workspace, head: str, scratch: Scratch, paths: list[bytes]) -> None:
    """Note new files in the scratch's index, without their content. Bad ones are left out."""
    command = git(workspace.where(head, scratch=scratch), "add", ["--pathspec-file-nul"])
    stdin = b"\0".join(paths) + b"\0"
    await workspace.cells.run(workspace.cell(head, scratch=scratch), command, stdin, timeout=120)


async def _renames(workspace: Workspace, head: str, scratch: Scratch) -> list[Entry]:
    where = workspace.where(head, scratch=scratch)
    command = git(where, "status", ["--untracked-files=no", "--find-renames"])
    cell = workspace.cell(head, scratch=scratch)
    output = await workspace.cells.check(cell, command, timeout=120, limit=_OUTPUT_LIMIT)
    return [
        replace(entry, index=Change.NONE)
        for entry in parse(output)
        if entry.work is Change.RENAMED and entry.old_path
    ]


def parse(output: bytes) -> Iterator[Entry]:
    """Read `git status --porcelain=v2 -z`."""
    records = iter(output.split(b"\0"))
    for record in records:
        kind = record[:1]
        if kind == b"1":
            fields = record.split(b" ", 8)
            yield _changed(fields[1], fields[2], fields[8])
        elif kind == b"2":
            fields = record.split(b" ", 9)
            yield replace(_changed(fields[1], fields[2], fields[9]), old_path=next(records))
        elif kind == b"u":
            fields = record.split(b" ", 10)
            yield Entry(path=fields[10], index=Change.UNMERGED, work=Change.UNMERGED)
        elif kind == b"?":
            path = record[2:]
            # Files are listed one by one, so a directory is a repository of its own.
            yield Entry(path=path, work=Change.UNTRACKED, submodule=path.endswith(b"/"))


def _changed(states: bytes, submodule: bytes, path: bytes) -> Entry:
    index, work = states[:1].decode("ascii"), states[1:].decode("ascii")
    return Entry(
        path=path,
        index=Change(index),
        work=Change(work),
        submodule=submodule.startswith(b"S"),
    )
