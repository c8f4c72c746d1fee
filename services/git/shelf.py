"""Where checkouts lie on the disk, and what is noted of each."""

import ctypes
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from services.git import files
from services.git.command import is_commit_id

_VERSION: Final = 1
_META: Final = "meta.json"
_PASSABLE: Final = 0o711
_META_LIMIT: Final = 4096


@dataclass(frozen=True, slots=True)
class Meta:
    """What is known of a checkout."""

    commit: str
    parent: str
    """The commit of the checkout it is a layer over; empty when it is whole."""
    bytes: int
    """Of disk, without those of its parents."""
    files: int
    """Entries that the commit has."""
    time: float
    """When it was filled, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Found:
    """A checkout on the disk: its trees, the topmost first, and about when it was used last."""

    layers: tuple[Path, ...]
    meta: Meta
    used: float

    @property
    def directory(self) -> Path:
        return self.layers[0].parent


def make(directory: Path) -> None:
    """Make a directory that users of cells pass through; its parent must be."""
    directory.mkdir(exist_ok=True)
    directory.chmod(_PASSABLE)


def start(home: Path, commit: str) -> Path:
    """Make the directory in which a checkout comes to be, hidden until it is renamed."""
    directory = home / _hidden(commit)
    for one in (home.parent, home, directory):
        make(one)
    return directory


def finish(directory: Path, meta: Meta) -> None:
    """Write down what it is. After a power loss either all of it is there, or this is not."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)
    files.write(directory / _META, json.dumps({"version": _VERSION, **asdict(meta)}).encode())


def note(directory: Path, moment: float) -> None:
    """Remember that it was used."""
    with suppress(OSError):  # No loss: it may be removed earlier.
        os.utime(directory / _META, (moment, moment))


def hide(directory: Path) -> Path:
    """Rename a directory to what nobody takes for a checkout; its new path."""
    if directory.name.startswith("."):
        return directory
    return directory.rename(directory.with_name(_hidden(directory.name)))


def sweep(root: Path, directory: Path) -> None:
    """Remove the directories above one that was removed, as far as they are empty."""
    for parent in directory.parents:
        if parent == root:
            return
        try:
            parent.rmdir()
        except OSError:
            return


def read(root: Path) -> tuple[list[Found], list[Path]]:
    """The checkouts below `root`, the one used least recently first, and what else is there."""
    found: list[Found] = []
    strays: list[Path] = []
    for tenant in _directories(root, strays):
        for home in _directories(tenant, strays):
            rest: dict[str, Found] = {}
            for directory in _directories(home, strays):
                if one := _read(directory):
                    rest[directory.name] = one
                else:
                    strays.append(directory)
            found += _whole(rest)
            strays += [one.directory for one in rest.values()]
    return sorted(found, key=lambda one: one.used), strays


def _whole(rest: dict[str, Found]) -> list[Found]:
    """Take out of `rest` those that have all layers below them."""
    whole: dict[str, Found] = {}
    while ready := [
        commit for commit, one in rest.items() if not one.meta.parent or one.meta.parent in whole
    ]:
        for commit in ready:
            one = rest.pop(commit)
            below = whole[one.meta.parent].layers if one.meta.parent else ()
            whole[commit] = replace(one, layers=(*one.layers, *below))
    return list(whole.values())


def _directories(parent: Path, strays: list[Path]) -> Iterator[Path]:
    for path in sorted(parent.iterdir()):
        if path.name.startswith(".") or not path.is_dir():
            strays.append(path)
        else:
            yield path


def _read(directory: Path) -> Found | None:
    path = directory / _META
    try:
        used = path.stat().st_mtime
        data = json.loads(path.read_bytes()[:_META_LIMIT])
        if data.pop("version") != _VERSION:
            return None
        meta = Meta(**data)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    whole = meta.commit == directory.name and is_commit_id(meta.commit)
    return Found((directory / "tree",), meta, used) if whole else None


def meta(directory: Path) -> Meta | None:
    """What is noted of one checkout; None where it is not whole."""
    found = _read(directory)
    return found.meta if found else None


def _hidden(name: str) -> str:
    return f".{name}.{secrets.token_hex(4)}"
