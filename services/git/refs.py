"""Reads the refs of a repository of ours without starting git.

Written by git alone; still not believed: what is no plain file with an object
id in it is not there. Names come from walking, so no name leads elsewhere.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from services.git.command import is_commit_id

_LOOSE_LIMIT: Final = 256


def read(path: Path, prefixes: Sequence[str]) -> dict[str, str]:
    """The refs below `prefixes`, such as `refs/tags/`, with the objects they name."""
    # Loose ones first, as git does: they may be packed meanwhile, never the other way.
    found: dict[str, str] = {}
    for prefix in prefixes:
        for name in _loose(path, prefix.rstrip("/")):
            if is_commit_id(value := read_one(path / name)):
                found[name] = value
    try:
        packed = (path / "packed-refs").read_text("utf-8", "surrogateescape")
    except FileNotFoundError:
        return found
    for line in packed.split("\n"):
        value, _, name = line.partition(" ")
        if name.startswith(tuple(prefixes)) and is_commit_id(value):
            found.setdefault(name, value)
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


def _loose(path: Path, top: str) -> Iterator[str]:
    for folder, _, names in os.walk(path / top):
        for name in names:
            if not name.endswith(".lock"):
                yield str(Path(folder, name).relative_to(path))
