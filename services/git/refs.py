"""Reads the refs of a repository of ours without starting git.

Written by git alone; still not believed: what is no plain file with an object
id in it is not there. No name leads elsewhere.
"""

import os
import stat
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from services.git.command import is_commit_id

_LOOSE_LIMIT: Final = 256
_REMEMBERED: Final = 32
"""Repositories whose packed refs are kept in memory."""
_NONE: Final[Mapping[str, str]] = MappingProxyType({})

_Signature = tuple[int, int, int]
_packed: OrderedDict[Path, tuple[_Signature, Mapping[str, str]]] = OrderedDict()


def read(path: Path, prefixes: Sequence[str]) -> dict[str, str]:
    """The refs below `prefixes`, such as `refs/tags/`, with the objects they name.

    A prefix that does not end with a slash is the name of one ref.
    """
    folders = tuple(prefix for prefix in prefixes if prefix.endswith("/"))
    # Loose ones first, as git does: they may be packed meanwhile, never the other way.
    found: dict[str, str] = {}
    for prefix in prefixes:
        for name in _loose(path, prefix):
            if is_commit_id(value := read_one(path / name)):
                found[name] = value
    known = packed(path)
    if not folders:
        for name in prefixes:
            if name in known:
                found.setdefault(name, known[name])
        return found
    for name, value in known.items():
        if name in prefixes or name.startswith(folders):
            found.setdefault(name, value)
    return found


def find(path: Path, name: str) -> str:
    """What one ref says; empty when there is none. Raises ValueError where it is damaged."""
    text = read_one(path / name)
    if is_commit_id(text):
        return text
    if os.path.lexists(path / name) and not (path / name).is_dir():
        raise ValueError(f"the ref {name} is damaged")
    if value := packed(path).get(name, ""):
        return value
    # Git writes a ref that was packed as a loose one again when it moves.
    text = read_one(path / name)
    return text if is_commit_id(text) else ""


def packed(path: Path) -> Mapping[str, str]:
    """The packed refs of a repository, read again when git has written them anew."""
    try:
        descriptor = os.open(
            path / "packed-refs", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except FileNotFoundError:
        return _NONE
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor.
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            return _NONE
        signature = (about.st_ino, about.st_mtime_ns, about.st_size)
        known = _packed.get(path)
        if known is None or known[0] != signature:
            known = (signature, MappingProxyType(_parsed(file.read())))
            _packed[path] = known
        try:
            _packed.move_to_end(path)
            while len(_packed) > _REMEMBERED:
                _packed.popitem(last=False)
        except KeyError:  # Another thread was quicker.
            pass
    return known[1]


def _parsed(data: bytes) -> dict[str, str]:
    found = {}
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        value, _, name = line.partition(" ")
        if is_commit_id(value):
            found[name] = value
    return found


def read_one(path: Path) -> str:
    """What a loose ref says; empty when there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return os.read(descriptor, _LOOSE_LIMIT).decode("ascii", "replace").strip()
    finally:
        os.close(descriptor)


def _loose(path: Path, prefix: str) -> Iterator[str]:
    if not prefix.endswith("/"):
        if ".." not in prefix and "\0" not in prefix:  # As in no name of git's.
            yield prefix
        return
    for folder, _, names in os.walk(path / prefix):
        for name in names:
            if not name.endswith(".lock"):
                yield str(Path(folder, name).relative_to(path))
