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
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class Local:
    """What is to be copied."""

    path: Path
    kind: Kind
    mode: int
    size: int


def found(source: Path) -> Local:
    """What is named, and not a link to it. Raises `OSError` when it does not exist."""
    path = source.resolve(strict=True)
    status = path.stat()
    kinds = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY}
    kind = kinds.get(stat.S_IFMT(status.st_mode), Kind.OTHER)
    return Local(path, kind, stat.S_IMODE(status.st_mode) & 0o777, status.st_size)


def name_of(path: Path) -> str:
    """The last part, also of `.` and `..`."""
    return path.resolve().name


def inside(target: Path, name: bytes) -> Path:
    """Where a copy goes: into the target when that is a directory, else the target itself."""
    return target / os.fsdecode(name) if name and target.is_dir() else target


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
