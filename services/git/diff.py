"""Streams a diff, cut where a limit is reached."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, replace
from typing import Final

from services.git import changes
from services.git.cell import Cell, timed_out_as
from services.git.command import Command, Where, git
from services.git.errors import GitTimedOut, OutputTooLarge, failed, left_out
from services.git.process import Running
from services.git.status import Change
from services.git.transport import STORE
from services.git.workspace import Workspace

PATHS: Final = 512 << 10
"""Bytes of all paths that are asked for: with all else they fit into a command line."""
_OPTIONS: Final = ("-z", "--patch-with-raw", "--numstat", "--find-renames")
_CHUNK: Final = 64 * 1024
_LIST_TIMEOUT: Final = 120  # Lines are counted before the first patch comes.
_READ_TIMEOUT: Final = 60
_RECORD_LIMIT: Final = 64 * 1024
_HEADER: Final = b"diff --git "


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where a diff is cut."""

    files: int = 1000
    lines: int = 50_000
    bytes: int = 8 << 20
    file_bytes: int = 1 << 20

    def at_most(self, files: int, lines: int, size: int, file_bytes: int) -> "Limits":
        """These, or what a caller asks for where that is less; 0 asks for nothing."""
        return Limits(
            files=min(files or self.files, self.files),
            lines=min(lines or self.lines, self.lines),
            bytes=min(size or self.bytes, self.bytes),
            file_bytes=min(file_bytes or self.file_bytes, self.file_bytes),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file that differs; its patch follows."""

    path: bytes
    old_path: bytes = b""
    change: Change = Change.MODIFIED
    old_mode: str = ""
    new_mode: str = ""
    binary: bool = False
    additions: int = 0
    deletions: int = 0


@dataclass(frozen=True, slots=True)
class Patch:
    """A part of the patch of the last file."""

    data: bytes
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """Sums over all files, also those that were cut."""

    files: int
    additions: int
    deletions: int
    truncated: bool


Event = File | Patch | End


async def of_work(
    workspace: Workspace, since: str, paths: Sequence[bytes], limits: Limits
) -> AsyncGenerator[Event, None]:
    """From the commit `since` (empty: from nothing) to the files, new ones included.

    The files are first written as objects, as a commit would, so that a program
    writing at the same time cannot mix up what belongs to which file.
    """
    async with AsyncExitStack() as stack:
        async with workspace.lock:
            head = workspace.head
            where = await stack.enter_async_context(workspace.scratch())
            planned = await changes.write_tree(workspace, head, paths, where.objects)
        values = [since or changes.EMPTY_TREE, planned.tree]
        command = git(where, "diff", _OPTIONS, values=values, paths=_text(paths))
        events = _stream(workspace, workspace.cell(), command, limits)
        async for event in await stack.enter_async_context(aclosing(events)):
            yield event


async def of_commits(
    workspace: Workspace, old: str, new: str, paths: Sequence[bytes], limits: Limits
) -> AsyncGenerator[Event, None]:
    """From one commit (empty: from nothing) to another."""
    values = [old or changes.EMPTY_TREE, new or changes.EMPTY_TREE]
    command = git(Where(git_dir=STORE), "diff", _OPTIONS, values=values, paths=_text(paths))
    cell = workspace.repository.cell()
    async with aclosing(_stream(workspace, cell, command, limits)) as events:
        async for event in events:
            yield event


def _text(paths: Sequence[bytes]) -> list[str]:
    return [path.decode("utf-8", "surrogateescape") for path in paths]


async def _stream(
    workspace: Workspace, cell: Cell, command: Command, limits: Limits
) -> AsyncGenerator[Event, None]:
    async with workspace.cells.started(cell, command) as running:
        await running.feed(b"")
        async with aclosing(running.output()) as output:
            reader = _Reader(output)
            try:
                with timed_out_as("diff"):
                    async with asyncio.timeout(_LIST_TIMEOUT):
                        files = await _read_files(reader)
            except EOFError:
                raise _failure(workspace, await running.wait(), running.errors) from None
            async with aclosing(_patches(reader, files, limits)) as events:
                async for event in events:
                    # What was cut may still be written; the rest must have come whole.
                    is_whole = isinstance(event, End) and not event.truncated
                    if is_whole and (code := await reader.ended(running)):
                        raise _failure(workspace, code, running.errors)
                    yield event


def _failure(workspace: Workspace, code: int, errors: str) -> Exception:
    part = workspace.repository.partial
    if part is not None and part.filter and "unable to read" in errors:
        return left_out()
    return failed("diff", code, errors)


async def _patches(
    reader: "_Reader", files: Sequence[File], limits: Limits
) -> AsyncGenerator[Event, None]:
    lines, size, cut_any = limits.lines, limits.bytes, len(files) > limits.files
    for file in files[: limits.files]:
        yield file
        # A change of kind is written as one file deleted and another made.
        headers = 2 if file.change is Change.TYPE_CHANGED else 1
        budget, cut = min(limits.file_bytes, size), lines <= 0 or size <= 0
        if cut:
            cut_any = True
            if not file.binary:
                yield Patch(b"", truncated=True)
            continue
        async with aclosing(reader.patch(headers)) as parts:
            async for data in parts:
                if cut or file.binary:
                    continue
                kept = _cut(data, budget, lines)
                budget, size = budget - len(kept), size - len(kept)
                lines -= kept.count(b"\n")
                cut = kept != data
                if kept or cut:
                    yield Patch(kept, truncated=cut)
        cut_any |= cut
    yield End(
        len(files),
        sum(file.additions for file in files),
        sum(file.deletions for file in files),
        cut_any,
    )


def _cut(data: bytes, size: int, lines: int) -> bytes:
    """As much of `data` as fits; whole lines, where there are any."""
    kept = data
    if len(kept) > size:
        kept = kept[:size]
        kept = kept[: kept.rfind(b"\n") + 1] or kept
    if kept.count(b"\n") > lines:
        kept = b"".join(kept.splitlines(keepends=True)[:lines])
    return kept


async def _read_files(reader: "_Reader") -> list[File]:
    """Read the list of files, then their counts of lines."""
    files: list[File] = []
    while await reader.peek() == b":":
        old_mode, new_mode, _, _, state = (await reader.record())[1:].decode("ascii").split(" ")
        change = Change(state[0])
        old_path = await reader.record() if change is Change.RENAMED else b""
        files.append(
            File(
                path=await reader.record(),
                old_path=old_path,
                change=change,
                old_mode=old_mode if old_mode != "000000" else "",
                new_mode=new_mode if new_mode != "000000" else "",
            )
        )
    for number, file in enumerate(files):
        added, deleted, path = (await reader.record()).split(b"\t", 2)
        if not path:
            await reader.record()
            await reader.record()
        if added == b"-":
            files[number] = replace(file, binary=True)
        else:
            files[number] = replace(file, additions=int(added), deletions=int(deleted))
    if files:
        with suppress(EOFError):  # Where no file has a patch.
            await reader.record()
    return files


class _Reader:
    """Reads git's output in records, then in patches, never holding more than a chunk."""

    def __init__(self, output: AsyncGenerator[bytes, None]) -> None:
        self._output = output
        self._buffer = bytearray()
        self._ended = False

    async def _more(self) -> bool:
        try:
            async with asyncio.timeout(_READ_TIMEOUT):
                self._buffer += await anext(self._output)
        except StopAsyncIteration:
            self._ended = True
        except TimeoutError:
            raise GitTimedOut("git did not finish in time", command="diff") from None
        return not self._ended

    async def ended(self, running: Running) -> int:
        """How git ended, after all that it wrote."""
        while await self._more():
            self._buffer.clear()
        return await running.wait()

    async def peek(self) -> bytes:
        while not self._buffer and await self._more():
            pass
        return bytes(self._buffer[:1])

    async def record(self) -> bytes:
        """Up to the next NUL, which is dropped. Raises `EOFError` where there is none."""
        while (end := self._buffer.find(b"\0")) < 0:
            if len(self._buffer) > _RECORD_LIMIT:
                raise OutputTooLarge("a path is too long", command="diff")
            if not await self._more():
                raise EOFError
        record = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return record

    async def patch(self, headers: int) -> AsyncGenerator[bytes, None]:
        """The next patch in parts of whole lines: until that many headers have gone by."""
        seen, pending, at_start = 0, deque[bytes](), True
        held = 0
        while True:
            end = self._buffer.find(b"\n") + 1
            if end == 0 and len(self._buffer) < _CHUNK and await self._more():
                continue
            if end == 0 and not self._buffer:
                break
            line = bytes(self._buffer[: end or _CHUNK])
            if at_start and line.startswith(_HEADER):
                if seen == headers:
                    break
                seen += 1
            del self._buffer[: len(line)]
            at_start = line.endswith(b"\n")
            pending.append(line)
            held += len(line)
            if held >= _CHUNK:
                yield b"".join(pending)
                pending.clear()
                held = 0
        if pending:
            yield b"".join(pending)
