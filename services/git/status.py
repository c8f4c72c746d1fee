"""What differs in a worktree from the head of its branch."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from services.git.blocking import unblocked
from services.git.cell import Cell, timed_out_as
from services.git.command import Command, git
from services.git.errors import OutputTooLarge, failed
from services.git.workspace import Scratch, Workspace

_RENAME_LIMIT: Final = 1000
_OUTPUT_LIMIT: Final = 64 << 20
_TIMEOUT: Final = 120


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


@dataclass(frozen=True, slots=True)
class Found:
    """What differs, in the order of paths; `total` counts also what is not in `entries`."""

    entries: Sequence[Entry]
    total: int

    @property
    def truncated(self) -> bool:
        return self.total > len(self.entries)


async def read(workspace: Workspace, head: str, *, limit: int = _OUTPUT_LIMIT) -> Found:
    """All entries, or as many as git tells in `limit` bytes. Call it locked.

    Renames are found where files vanished and others appeared, unless very many did.
    """
    await workspace.ensure_index(head)
    async with unblocked(workspace, workspace.cell(head)):
        return await _read(workspace, head, limit)


async def _read(workspace: Workspace, head: str, limit: int) -> Found:
    command = git(workspace.where(head), "status", ["--untracked-files=all", "--no-renames"])
    output, more = await _run(workspace, workspace.cell(head), command, limit)
    entries = {entry.path: entry for entry in parse(output)}
    new = [entry.path for entry in entries.values() if _is_new(entry)]
    gone = sum(entry.work is Change.DELETED for entry in entries.values())
    if new and gone and not more and max(len(new), gone) <= _RENAME_LIMIT:
        async with workspace.scratch(head) as scratch:
            await intend(workspace, head, scratch, new)
            for renamed in await _renames(workspace, head, scratch):
                if renamed.path in entries and renamed.old_path in entries:
                    del entries[renamed.old_path]
                    entries[renamed.path] = renamed
    in_order = sorted(entries.values(), key=lambda entry: entry.path)
    return Found(in_order, len(in_order) + more)


async def read_all(workspace: Workspace, head: str) -> Sequence[Entry]:
    """As `read`, for those who need every entry. Raises `OutputTooLarge` when there are more."""
    found = await read(workspace, head)
    if found.truncated:
        raise OutputTooLarge(
            "too many files differ",
            total=str(found.total),
            remedy="List in .gitignore what is not to be committed.",
        )
    return found.entries


async def _run(workspace: Workspace, cell: Cell, command: Command, limit: int) -> tuple[bytes, int]:
    """Whole records in at most `limit` bytes, and how many more there were."""
    kept, more = bytearray(), 0
    with timed_out_as("status"):
        async with (
            workspace.cells.started(cell, command) as running,
            asyncio.timeout(_TIMEOUT),
            aclosing(running.output()) as output,
        ):
            await running.feed(b"")
            async for data in output:
                room = max(limit - len(kept), 0)
                kept += data[:room]
                more += data[room:].count(b"\0")
            if code := await running.wait():
                raise failed("status", code, running.errors)
    end = kept.rfind(b"\0") + 1
    return bytes(kept[:end]), more


def _is_new(entry: Entry) -> bool:
    return entry.work is Change.UNTRACKED and not entry.submodule


async def intend(workspace: Workspace, head: str, scratch: Scratch, paths: list[bytes]) -> None:
    """Note new files in the scratch's index, without their content. Bad ones are left out."""
    command = git(workspace.where(head, scratch=scratch), "add", ["--pathspec-file-nul"])
    stdin = b"\0".join(paths) + b"\0"
    await workspace.cells.run(
        workspace.cell(head, scratch=scratch), command, stdin, timeout=_TIMEOUT
    )


async def _renames(workspace: Workspace, head: str, scratch: Scratch) -> list[Entry]:
    where = workspace.where(head, scratch=scratch)
    command = git(where, "status", ["--untracked-files=no", "--find-renames"])
    cell = workspace.cell(head, scratch=scratch)
    output = await workspace.cells.check(cell, command, timeout=_TIMEOUT, limit=_OUTPUT_LIMIT)
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
