"""Brings what a command changed from a directory that the engine wrote into the worktree.

The worktree is full of what commands made, symbolic links among it. So every step is relative to a
descriptor of the directory it is in, and no link is ever followed.
"""

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def apply(changes: Path, removed: Iterable[str], tree: Path) -> None:
    """Remove from `tree` what is named, then move everything in `changes` into it.

    Both are on one file system. Each file is there whole, before or after. What comes gets the
    owner that the tree has. Raises OSError.
    """
    owner = tree.stat()
    root = os.open(tree, _DIRECTORY)
    try:
        for path in removed:
            _remove(root, path.strip("/").split("/"))
        if changes.exists():
            source = os.open(changes, _DIRECTORY)
            try:
                _merge(source, root, owner)
            finally:
                os.close(source)
    finally:
        os.close(root)


def remove(folder: Path) -> None:
    """Remove a directory of ours, whatever modes are in it."""
    shutil.rmtree(folder, ignore_errors=True)


def _remove(root: int, names: list[str]) -> None:
    if any(name in ("", ".", "..") for name in names):
        return
    with _at(root, names[:-1]) as parent:
        if parent is not None:
            _clear(parent, names[-1])


@contextmanager
def _at(root: int, names: list[str]) -> Iterator[int | None]:
    """The directory there; None when there is none, or a link is on the way."""
    descriptor = os.dup(root)
    try:
        for name in names:
            try:
                following = os.open(name, _DIRECTORY, dir_fd=descriptor)
            except OSError:
                yield None
                return
            os.close(descriptor)
            descriptor = following
        yield descriptor
    finally:
        os.close(descriptor)


def _clear(parent: int, name: str) -> None:
    """Remove what has that name, if anything."""
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode):
        shutil.rmtree(name, dir_fd=parent)
    else:
        os.unlink(name, dir_fd=parent)


def _merge(source: int, target: int, owner: os.stat_result) -> None:
    with os.scandir(source) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            _merge_directory(source, target, name, found, owner)
        elif stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
            _clear_directory(target, name)
            os.chown(name, owner.st_uid, owner.st_gid, dir_fd=source, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):  # Changing the owner took these from it.
                os.chmod(name, stat.S_IMODE(found.st_mode) & 0o777, dir_fd=source)
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
        # Nothing else is ever in a repository: sockets, pipes and devices stay behind.


def _merge_directory(
    source: int, target: int, name: str, found: os.stat_result, owner: os.stat_result
) -> None:
    with suppress(FileNotFoundError):
        there = os.stat(name, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISDIR(there.st_mode):
            os.unlink(name, dir_fd=target)
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=target)
    inside = os.open(name, _DIRECTORY, dir_fd=source)
    try:
        into = os.open(name, _DIRECTORY, dir_fd=target)
        try:
            os.fchown(into, owner.st_uid, owner.st_gid)
            os.fchmod(into, stat.S_IMODE(found.st_mode) & 0o777)
            _merge(inside, into, owner)
        finally:
            os.close(into)
    finally:
        os.close(inside)


def _clear_directory(target: int, name: str) -> None:
    """Where a file is to be there must be no directory: a rename does not replace one."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=target, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=target)
