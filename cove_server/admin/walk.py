"""Goes through directories that others write to meanwhile, and follows no link."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OTHER: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
MOST_DEEP: Final = 400
"""Directories within each other: each is open meanwhile."""


class Seen(NamedTuple):
    """What was found. The descriptor is closed when the next one is asked for."""

    path: str
    descriptor: int
    problem: str = ""
    """Why it is not there, and nothing below it."""


class _Folder(NamedTuple):
    path: str
    descriptor: int
    entries: "os._ScandirIterator[str]"


def walk(parent: int, name: str, skip: Callable[[str], bool] = lambda _: False) -> Iterator[Seen]:
    """What is at `name` in the directory `parent`, and all below it, parents first.

    What goes meanwhile is not there; sockets and devices never are. `skip` is asked about paths,
    which begin with `name`.
    """
    stack: list[_Folder] = []
    try:
        yield from _one(parent, name, name, stack, skip)
        while stack:
            path, folder, entries = stack[-1]
            entry = next(entries, None)
            if entry is None:
                _close(stack.pop())
                continue
            yield from _one(folder, entry.name, f"{path}/{entry.name}", stack, skip)
    finally:
        for each in stack:
            _close(each)


def _one(
    parent: int,
    name: str,
    path: str,
    stack: list[_Folder],
    skip: Callable[[str], bool],
) -> Iterator[Seen]:
    if skip(path):
        return
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not _wanted(found):
            return
        if stat.S_ISDIR(found.st_mode):
            if len(stack) >= MOST_DEEP:
                yield Seen(path, -1, "too deep")
                return
            flags = _FOLDER
        else:
            flags = _FILE if stat.S_ISREG(found.st_mode) else _OTHER
        descriptor = os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError as error:
        yield Seen(path, -1, error.strerror or str(error))
        return
    kept = False
    try:
        if os.fstat(descriptor).st_ino != found.st_ino:  # Another has its name now.
            return
        yield Seen(path, descriptor)
        if stat.S_ISDIR(found.st_mode):
            with suppress(FileNotFoundError):
                stack.append(_Folder(path, descriptor, os.scandir(descriptor)))
                kept = True
    finally:
        if not kept:
            os.close(descriptor)


def _close(folder: _Folder) -> None:
    folder.entries.close()
    os.close(folder.descriptor)


def _wanted(found: os.stat_result) -> bool:
    whiteout = stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
    kinds = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK, stat.S_ISFIFO)
    return whiteout or any(kind(found.st_mode) for kind in kinds)
