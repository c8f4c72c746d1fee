"""Files on this side of a copy."""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import BinaryIO, Final

_NAME_IN_NEW: Final = 100


class Kind(Enum):
    """What a path is."""

    FILE = auto()
    DIRECTORY = auto()
    SYMLINK = auto()
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class Local:
    """Something below the directory that is copied, or the file itself."""

    path: Path
    relative: str
    """Below what is copied; empty for that itself."""
    kind: Kind
    mode: int


def tree(source: Path) -> Iterator[Local]:
    """The source, and all that is in it: a directory before its content, links not followed.

    Raises `OSError` when it does not exist.
    """
    root = _local(source, source)
    if root.kind is Kind.SYMLINK:  # What is named is copied, not the link to it.
        root = _local(source.resolve(strict=True), source.resolve())
    yield root
    if root.kind is Kind.DIRECTORY:
        for folder, folders, names in os.walk(root.path):
            for name in sorted([*folders, *names]):
                yield _local(Path(folder) / name, root.path)
            folders.sort()


def _local(path: Path, root: Path) -> Local:
    mode = path.lstat().st_mode
    kinds = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.SYMLINK}
    kind = kinds.get(stat.S_IFMT(mode), Kind.OTHER)
    relative = "" if path == root else path.relative_to(root).as_posix()
    return Local(path, relative, kind, stat.S_IMODE(mode) & 0o777)


def name_of(path: Path) -> str:
    """The last part, also of `.` and `..`."""
    return path.resolve().name


def inside(target: Path, name: bytes) -> Path:
    """Where a copy goes: into the target when that is a directory, else the target itself."""
    return target / os.fsdecode(name) if name and target.is_dir() else target


def make_folder(path: Path) -> None:
    """Make it unless it is there. Raises `OSError` for a link, which could lead elsewhere."""
    path.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        raise NotADirectoryError(errno.ELOOP, "is a symbolic link", str(path))


@contextmanager
def replacing(target: Path, mode: int) -> Iterator[BinaryIO]:
    """A new file that takes the target's place, whole or not at all, when the block ends."""
    if not target.parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(target.parent))
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:_NAME_IN_NEW]}.")
    fresh = Path(name)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor.
            yield file
            os.fchmod(descriptor, mode)
        fresh.replace(target)
    except BaseException:
        fresh.unlink()
        raise
