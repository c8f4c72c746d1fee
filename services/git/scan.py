"""Lists what a layer of an overlay holds, from outside.

Names, kinds and the marks of the overlay only: no content is read here, and no link followed.
Marks of an overlay that root mounted can be read by root alone, which no cell is.
"""

import asyncio
import errno
import marshal
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from services.git.errors import OutputTooLarge
from services.git.within.layers import CLOSED, OPAQUE, REDIRECT
from services.git.within.system import open_beneath

_MAX_ENTRIES: Final = 1_000_000
_LITTLE: Final = 300
_SETTLED: Final = 100_000_000
"""Nanoseconds: more than a tick of the clock of a file system."""
_CTIME: Final = 5
_ROOM: Final = 64 << 20
_PIECE: Final = 1 << 16
_MAX_BYTES: Final = 64 << 20
"""Of all names."""
_MAX_PATH: Final = 4095
_GIT: Final = b".git"

Scan = list[Any]
"""Of each directory, after its parent: path, mark, entries (name, kind, mode, size, mtime, ctime,
inode). Bytes are text in Latin-1."""


def scan(layer: Path, namespace: str, *, whole: bool = False, most: int = _MAX_ENTRIES) -> Scan:
    """What the layer at `layer` holds, `.git` at its top left out unless it is to be `whole`.

    Marks are in extended attributes of `namespace` (`trusted` or `user`); without one it is a
    whole worktree. Raises `OutputTooLarge`.
    """
    root = os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        prefix = f"{namespace}.overlay." if namespace else ""
        return list(_directories(root, prefix, b"" if whole else _GIT, most))
    finally:
        os.close(root)


def glance(layer: Path, namespace: str) -> Scan | None:
    """As `scan`, where there is so little that no thread need be asked; else None."""
    try:
        return scan(layer, namespace, most=_LITTLE)
    except OutputTooLarge:
        return None


def is_settled(scans: Sequence[Scan], now: int) -> bool:
    """Whether little is there, and no file has changed shortly before `now`, in nanoseconds.

    Then what changes later is seen in the times of the next scan.
    """
    if not is_little(scans):
        return False
    found = (entry for one in scans for _, _, entries in one for entry in entries)
    return all(entry[_CTIME] < now - _SETTLED for entry in found)


def is_little(scans: Sequence[Scan]) -> bool:
    """Whether there are so few directories and entries that no thread need be asked."""
    directories = sum(map(len, scans))
    if directories > _LITTLE:
        return False
    return directories + sum(len(entries) for one in scans for _, _, entries in one) <= _LITTLE


def spool(scans: list[Any], file: int) -> None:
    """Write them into a file, from which `within.layers.spooled` reads them."""
    with open(file, "wb", closefd=False) as target:
        target.write(marshal.dumps(scans))
    os.lseek(file, 0, os.SEEK_SET)


class Frozen:
    """Scans of frozen layers, which stay what they are, for all who stand on them.

    Those used last are kept, up to `room` bytes.
    """

    def __init__(self, room: int = _ROOM) -> None:
        self._left = room
        self._known: OrderedDict[Path, bytes] = OrderedDict()

    async def scan(self, layer: Path, namespace: str) -> Scan:
        """As `scan`."""
        data = self._known.pop(layer, None)
        if data is None:
            data = await asyncio.to_thread(lambda: marshal.dumps(scan(layer, namespace)))
            self._left -= 0 if layer in self._known else len(data)
        self._known[layer] = data
        while self._left < 0 and self._known:
            self._left += len(self._known.popitem(last=False)[1])
        made: Scan
        if len(data) < _PIECE:
            made = marshal.loads(data)  # noqa: S302 - our own.
        else:
            made = await asyncio.to_thread(marshal.loads, data)
        return made


def _directories(root: int, prefix: str, hidden: bytes, most: int) -> Iterator[list[Any]]:
    todo, entries, size = [b""], 0, 0
    while todo:
        path = todo.pop()
        try:
            directory = open_beneath(root, path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
            if error.errno == errno.EACCES and path:
                yield [path.decode("latin-1"), CLOSED, []]
            continue  # Gone meanwhile.
        try:
            mark = _mark(directory, prefix) if prefix else OPAQUE
            found, below = _entries(directory, b"" if path else hidden, most)
        finally:
            os.close(directory)
        entries += len(found) + len(below)
        size += sum(len(name) for name, *_ in found) + sum(map(len, below))
        if entries > most or size > _MAX_BYTES:
            raise _too_large()
        yield [path.decode("latin-1"), mark, found]
        start = path + b"/" if path else b""
        todo += [start + name for name in below if len(start) + len(name) <= _MAX_PATH]


def _too_large() -> OutputTooLarge:
    return OutputTooLarge(
        "the worktree has too many files that differ",
        remedy="Remove files, or move them to /tmp or the home directory.",
    )


def _entries(directory: int, hidden: bytes, most: int) -> tuple[list[list[Any]], list[bytes]]:
    """What is no directory, and the names of those that are."""
    found, below = list[list[Any]](), list[bytes]()
    with os.scandir(directory) as listing:
        for one in listing:
            name = os.fsencode(one.name)
            if name == hidden:
                continue
            if len(found) + len(below) > most:
                raise _too_large()
            try:
                about = one.stat(follow_symlinks=False)
            except OSError:
                continue  # Gone meanwhile.
            kind = _kind(about)
            if kind == "d":
                below.append(name)
                continue
            times = (about.st_mtime_ns, about.st_ctime_ns, about.st_ino)
            found.append([name.decode("latin-1"), kind, about.st_mode, about.st_size, *times])
    return found, below


def _kind(about: os.stat_result) -> str:
    if stat.S_ISREG(about.st_mode):
        return "f"
    if stat.S_ISDIR(about.st_mode):
        return "d"
    if stat.S_ISLNK(about.st_mode):
        return "l"
    if stat.S_ISCHR(about.st_mode) and about.st_rdev == 0:
        return "w"
    return "s"


def _mark(directory: int, prefix: str) -> str:
    """What the overlay says of a directory. Nearly all have no mark, which one call tells."""
    try:
        names = os.listxattr(directory)
    except OSError:  # A file system without attributes.
        return ""
    if f"{prefix}opaque" in names and _attribute(directory, f"{prefix}opaque") == b"y":
        return OPAQUE
    redirect = _attribute(directory, f"{prefix}redirect") if f"{prefix}redirect" in names else b""
    return REDIRECT + redirect.decode("latin-1") if redirect else ""


def _attribute(directory: int, name: str) -> bytes:
    try:
        return os.getxattr(directory, name)
    except OSError:  # Gone meanwhile.
        return b""
