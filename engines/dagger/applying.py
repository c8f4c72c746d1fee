"""Brings what a command changed from a directory that the engine wrote into the worktree.

The worktree is full of what commands made, symbolic links among it, folders that are closed to
everybody, and as deep as they like. So every step is relative to a descriptor of the directory it
is in, no link is ever followed, and there are not many at a time: this process has the environments
of all.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from agent.removal import remove_tree

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST: Final = 256
"""Directories below each other; for each, two descriptors are open."""
_PLACE: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def apply(changes: Path, removed: Iterable[str], tree: Path) -> None:
    """Remove from `tree` what is named, then move everything in `changes` into it.

    Both are on one file system. Each file is there whole, before or after. What comes gets the
    owner that the tree has. Raises OSError.
    """
    owner = tree.stat()
    root = os.open(tree, _PLACE)
    try:
        for path in removed:
            _remove(root, path.strip("/").split("/"))
        if changes.exists():
            source = os.open(changes, _PLACE)
            try:
                _merge(source, root, owner)
            finally:
                os.close(source)
    finally:
        os.close(root)


def remove(folder: Path) -> None:
    """Remove a directory of ours, whatever is in it."""
    with suppress(OSError):
        parent = os.open(folder.parent, _PLACE)
        try:
            remove_tree(os.fsencode(folder.name), parent, unlock=True)
        finally:
            os.close(parent)


def _remove(root: int, names: list[str]) -> None:
    if any(name in ("", ".", "..") for name in names):
        return
    with closing(_Walk(root)) as walk:
        parent = walk.at(names[:-1])
        if parent is not None:
            with _open_to_us(parent):
                _clear(parent, names[-1])


class _Walk:
    """Goes from directory to directory below one, quickest to what is near where it is."""

    def __init__(self, root: int) -> None:
        self._names: list[str] = []
        self._opened = [os.dup(root)]

    def at(self, names: Sequence[str]) -> int | None:
        """The directory there; None when there is none, or a link is on the way."""
        while self._names != [*names[: len(self._names)]]:
            os.close(self._opened.pop())
            self._names.pop()
        for name in names[len(self._names) :]:
            try:
                self._opened.append(_entered(name, self._opened[-1]))
            except (FileNotFoundError, NotADirectoryError):
                return None
            self._names.append(name)
        return self._opened[-1]

    def close(self) -> None:
        for each in self._opened:
            os.close(each)


def _entered(name: str, place: int) -> int:
    try:
        return os.open(name, _PLACE, dir_fd=place)
    except PermissionError:
        with _open_to_us(place):
            return os.open(name, _PLACE, dir_fd=place)


@contextmanager
def _open_to_us(place: int) -> Iterator[None]:
    """For the block, its owner may do everything in a directory."""
    mode = stat.S_IMODE(os.fstat(place).st_mode)
    if mode & stat.S_IRWXU == stat.S_IRWXU:
        yield
        return
    _set_mode(place, mode | stat.S_IRWXU)
    try:
        yield
    finally:
        _set_mode(place, mode)


def _set_mode(place: int, mode: int) -> None:
    Path(f"/proc/self/fd/{place}").chmod(mode)


def _clear(parent: int, name: str) -> None:
    """Remove what has that name, if anything."""
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode):
        remove_tree(os.fsencode(name), parent, unlock=True)
    else:
        os.unlink(name, dir_fd=parent)


def _merge(source: int, target: int, owner: os.stat_result) -> None:
    """Directories first; each gets its mode when all is in it."""
    with closing(_Walk(source)) as ours, closing(_Walk(target)) as theirs:
        found = _directories(ours)
        for names, _ in found:
            here, there = ours.at(names), theirs.at(names)
            if here is None or there is None:
                continue  # Somebody writes files meanwhile: theirs are the later ones.
            with _open_to_us(here), _open_to_us(there):
                _move(here, there, owner)
        for names, mode in reversed(found):
            there = theirs.at(names)
            if names and there is not None:
                _set_mode(there, mode)


def _directories(walk: _Walk) -> list[tuple[tuple[str, ...], int]]:
    """All that there are, and their modes, each right before what is below it.

    Raises OSError where they are too deep, before anything was changed.
    """
    found: list[tuple[tuple[str, ...], int]] = []
    todo: list[tuple[tuple[str, ...], int]] = [((), 0)]
    while todo:
        names, mode = todo.pop()
        if len(names) > _DEEPEST:
            raise OSError(errno.ENAMETOOLONG, "directories are too deep to be brought in")
        found.append((names, stat.S_IMODE(mode) & 0o777))
        here = walk.at(names)
        assert here is not None  # Nobody else is in there.
        for name in _listed(here):
            below = os.stat(name, dir_fd=here, follow_symlinks=False).st_mode
            if stat.S_ISDIR(below):
                todo.append(((*names, name), below))
    return found


def _listed(place: int) -> list[str]:
    with _open_to_us(place):
        descriptor = os.open(".", _DIRECTORY, dir_fd=place)
    try:
        with os.scandir(descriptor) as entries:
            return [entry.name for entry in entries]
    finally:
        os.close(descriptor)


def _move(source: int, target: int, owner: os.stat_result) -> None:
    """Move what is in a directory; the directories in it are made."""
    for name in _listed(source):
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            _make_directory(target, name, owner)
        elif stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
            _clear_directory(target, name)
            os.chown(name, owner.st_uid, owner.st_gid, dir_fd=source, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):  # Changing the owner took these from it.
                os.chmod(name, stat.S_IMODE(found.st_mode) & 0o777, dir_fd=source)
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
        # Nothing else is ever in a repository: sockets, pipes and devices stay behind.


def _make_directory(target: int, name: str, owner: os.stat_result) -> None:
    with suppress(FileNotFoundError):
        there = os.stat(name, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISDIR(there.st_mode):
            os.unlink(name, dir_fd=target)
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=target)
    os.chown(name, owner.st_uid, owner.st_gid, dir_fd=target, follow_symlinks=False)


def _clear_directory(target: int, name: str) -> None:
    """Where a file is to be there must be no directory: a rename does not replace one."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=target, follow_symlinks=False).st_mode):
            remove_tree(os.fsencode(name), target, unlock=True)
