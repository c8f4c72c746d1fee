"""`cove cp ls-files`."""

import argparse
import asyncio
import os
import stat
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from cove.cli import local
from cove.cli.console import Console, quoted, when
from cove.cli.errors import Failure, UsageError
from cove.cli.progress import Progress, waiting
from cove.client import Client
from cove.executor.v1.executor_pb2 import File
from cove.files import Copied, Files, UnsafeArchive, raw_path
from cove.gateway.v1 import gateway_pb2 as pb
from cove.status import NotFound

_KINDS: Final = {
    File.KIND_FILE: "-",
    File.KIND_DIRECTORY: "d",
    File.KIND_SYMLINK: "l",
    File.KIND_OTHER: "?",
}


async def ls_files(cove: Client, options: argparse.Namespace, console: Console) -> int:
    files = cove.workspaces.named(options.workspace).files
    found = [file async for file in files.list(options.path)]
    if console.as_json:
        console.json(pb.ListFilesResponse(files=found))
        return 0
    for file in found:
        link = f" -> {quoted(file.link_target)}" if file.kind == File.KIND_SYMLINK else ""
        mode = _KINDS.get(file.kind, "?") + stat.filemode(file.mode)[1:]
        name = quoted("", _name(file))
        console.line(f"{mode} {file.size:>10} {when(file.modify_time)} {name}{link}")
    return 0


async def cp(cove: Client, options: argparse.Namespace, console: Console) -> int:
    source, target = _remote(options.source), _remote(options.target)
    if bool(source) == bool(target):
        raise UsageError("one of the two must be WORKSPACE:PATH, the other a local path")
    try:
        async with waiting(console, "copying", in_bytes=True) as progress:
            copied = _Copied(console, progress)
            if source:
                files = cove.workspaces.named(source.workspace).files
                await _download(files, source.path, Path(options.target), copied)
            elif target:
                files = cove.workspaces.named(target.workspace).files
                await _upload(files, Path(options.source), target.path, copied)
    except OSError as error:
        raise Failure(f"{quoted(os.fsdecode(error.filename or ''))}: {error.strerror}") from None
    except UnsafeArchive as error:
        raise Failure(f"the workspace sent what is not unpacked: {error}") from None
    if console.as_json:
        console.json({"files": copied.files, "bytes": copied.bytes, "skipped": copied.skipped})
    return 1 if copied.skipped else 0


@dataclass(frozen=True, slots=True)
class _Remote:
    workspace: str
    path: str


def _remote(text: str) -> _Remote | None:
    """`WORKSPACE:PATH`; a local path that has a colon is written with a slash before it."""
    workspace, colon, path = text.partition(":")
    if not colon or "/" in workspace or not workspace:
        return None
    return _Remote(workspace, path or ".")


class _Copied:
    """What was copied, and what was not."""

    def __init__(self, console: Console, progress: Progress | None) -> None:
        self._console = console
        self._progress = progress
        self.files = 0
        self.bytes = 0
        self.skipped: list[str] = []

    def goes_on(self, path: str, total: int, done: int) -> None:
        """So much of a file is copied."""
        if self._progress:
            self._progress.tell(quoted(path), done, total)

    def file(self, size: int) -> None:
        self.files += 1
        self.bytes += size

    def add(self, folder: Copied) -> None:
        """A whole directory."""
        self.files += folder.files
        self.bytes += folder.bytes
        for path in folder.skipped:
            self.skip(path)

    def skip(self, path: str) -> None:
        self.skipped.append(quoted(path))
        self._console.note(f"not copied: {quoted(path)}: a link that leads out, or no file")


async def _upload(files: Files, source: Path, target: str, copied: _Copied) -> None:
    if target.endswith("/") or await _is_directory(files, target):
        target = f"{target.rstrip('/')}/{local.name_of(source)}"
    found = local.found(source)
    if found.kind is local.Kind.DIRECTORY:
        done = partial(copied.goes_on, target, 0)
        copied.add(
            await files.upload_directory(found.path, target, make_parents=True, on_progress=done)
        )
    elif found.kind is local.Kind.FILE:
        written = await files.write(
            target,
            found.path,
            mode=found.mode,
            make_parents=True,
            on_progress=partial(copied.goes_on, target, found.size),
        )
        copied.file(written.size)
    else:
        copied.skip(str(source))


async def _download(files: Files, source: str, target: Path, copied: _Copied) -> None:
    found = await files.stat(source)
    where = local.inside(target, _name(found))
    if found.kind == File.KIND_DIRECTORY:
        copied.add(
            await files.download_directory(
                source, where, on_progress=partial(copied.goes_on, source, 0)
            )
        )
    elif found.kind == File.KIND_FILE:
        await _download_file(files, os.fsencode(source), found, where, copied)
    else:
        raise Failure(f"{source} is neither a file nor a directory")


async def _download_file(
    files: Files, source: bytes, found: File, target: Path, copied: _Copied
) -> None:
    size = 0
    with local.replacing(target, found.mode & 0o777) as file:
        async with aclosing(files.download(source)) as content:
            async for data in content:
                size += len(data)
                await asyncio.to_thread(file.write, data)
                copied.goes_on(os.fsdecode(source), found.size, size)
    copied.file(size)


def _name(file: File) -> bytes:
    """The last part of its path, never one that leads elsewhere."""
    name = raw_path(file).rstrip(b"/").rpartition(b"/")[2]
    return b"" if name in (b".", b"..") else name


async def _is_directory(files: Files, path: str) -> bool:
    try:
        return (await files.stat(path)).kind == File.KIND_DIRECTORY
    except NotFound:
        return False
