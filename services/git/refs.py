"""Reads the refs of a repository of ours without starting git.

Written by git alone; still not believed: what is no plain file with an object
id in it is not there. No name leads elsewhere.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from services.git.command import is_commit_id

_LOOSE_LIMIT: Final = 256


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
    try:
        packed = (path / "packed-refs").read_text("utf-8", "surrogateescape")
    except FileNotFoundError:
        return found
    for line in packed.split("\n"):
        value, _, name = line.partition(" ")
        if (name in prefixes or name.startswith(folders)) and is_commit_id(value):
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


def _loose(path: Path, prefix: str) -> Iterator[str]:
    if not prefix.endswith("/"):
        if ".." not in prefix and "\0" not in prefix:  # As in no name of git's.
            yield prefix
        return
    for folder, _, names in os.walk(path / prefix):
        for name in names:
            if not name.endswith(".lock"):
                yield str(Path(folder, name).relative_to(path))
