"""Finds the parts of a repository of this machine. Runs nothing, and believes no file of it."""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TEXT_LIMIT: Final = 4096
_ALTERNATES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRepository:
    """A repository: `common` has its objects, `own` the HEAD and index of this worktree of it."""

    common: Path
    own: Path
    tree: Path | None
    """The worktree; None for a bare repository."""


def find(path: Path) -> LocalRepository | None:
    """The repository at `path`, also by the `.git` file of a linked worktree; None: there is none.

    It may say that it is anywhere: check where it is before it is used.
    """
    if (path / "objects").is_dir() and (path / "HEAD").is_file():
        return LocalRepository(common=path, own=path, tree=None)
    own = path / ".git"
    if own.is_file():
        own = path / short_text(own).removeprefix("gitdir:").strip()
    own = own.resolve()
    common = (own / short_text(own / "commondir").strip()).resolve()
    if not (common / "objects").is_dir():
        return None
    inside = own.is_relative_to(common)
    return LocalRepository(common=common, own=own if inside else common, tree=path)


def alternates(repository: LocalRepository, allowed: Callable[[Path], bool]) -> Iterator[Path]:
    """Directories of objects that the repository borrows from others, where that is allowed."""
    todo, seen = [repository.common / "objects"], set[Path]()
    while todo and len(seen) < _ALTERNATES:
        objects = todo.pop()
        for line in short_text(objects / "info" / "alternates").splitlines():
            found = Path(os.path.realpath(objects / line))
            if line and found not in seen and (found / "pack").is_dir() and allowed(found):
                seen.add(found)
                todo.append(found)
                yield found


def short_text(path: Path) -> str:
    """The beginning of a file; empty where there is no plain one. Waits for nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return os.fsdecode(os.read(descriptor, _TEXT_LIMIT))
    finally:
        os.close(descriptor)
