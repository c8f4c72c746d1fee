"""How much the files below a directory take on disk, whoever moves them meanwhile."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_BLOCK: Final = 512
_MOST: Final = 2_000_000
"""Entries that are counted at most."""
_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def taken(state: Path, parts: Sequence[str]) -> int:
    """Bytes on disk below `state`/`parts`; 0 when it is not there. No symlink is followed.

    A file of several names counts for each a share. What cannot be read, or is moved while it is
    looked at, may be left out; so what it gives is never too much.
    """
    try:
        current = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        for part in parts:
            below = os.open(part, _FLAGS, dir_fd=current)
            os.close(current)
            current = below
        return _walk(current)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return 0
    finally:
        os.close(current)


def _walk(top: int) -> int:
    """One descriptor is open at a time, however deep it is."""
    current = os.dup(top)
    total, count = 0, 0
    above: list[tuple[tuple[int, int], list[str]]] = []
    try:
        size, names = _look(current)
        while True:
            total, size, count = total + size, 0, count + 1
            if count > _MOST:
                return total
            name = names.pop() if names else None
            if name is not None:
                try:
                    below = os.open(name, _FLAGS, dir_fd=current)
                except OSError:
                    continue
                if not _leads_back(below):  # It is closed to us, and so is all below it.
                    size, _ = _look(below)
                    os.close(below)
                    continue
                above.append((_identity(current), names))
                size, names = _look(below)
            elif above:
                try:
                    below = os.open("..", _FLAGS, dir_fd=current)
                except OSError:  # It was closed to us meanwhile.
                    return total
                identity, names = above.pop()
                if _identity(below) != identity:  # It was moved: where to, nobody knows.
                    os.close(below)
                    return total
            else:
                return total
            os.close(current)
            current = below
    finally:
        os.close(current)


def _look(descriptor: int) -> tuple[int, list[str]]:
    """What its files take, and its directories."""
    size, names = 0, []
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                directory = stat.S_ISDIR(found.st_mode)
                size += found.st_blocks * _BLOCK // (1 if directory else max(1, found.st_nlink))
                if directory:
                    names.append(entry.name)
    except OSError:
        return size, names
    return size, names


def _leads_back(directory: int) -> bool:
    try:
        os.close(os.open("..", _FLAGS, dir_fd=directory))
    except OSError:
        return False
    return True


def _identity(directory: int) -> tuple[int, int]:
    found = os.fstat(directory)
    return found.st_dev, found.st_ino
