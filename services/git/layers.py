"""What a checkout must hold to be a layer over another one.

A layer has the files that differ, and a whiteout, a character device 0:0, for
each that is gone. No directory needs to be opaque: one that comes where a file
or a link was hides it, and with what hides a directory goes all that is below.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.git.cell import Identity

_TREE: Final = 0o040000
_SUBMODULE: Final = 0o160000
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Difference:
    """How a commit differs from another one."""

    changed: int
    """Entries that are new, gone or different; directories are no entries."""
    more: int
    """By how many entries it has more."""
    written: tuple[bytes, ...]
    """Files, links and places of submodules that the layer holds."""
    gone: tuple[bytes, ...]
    """The topmost paths that the layer has to hide."""


@dataclass(frozen=True, slots=True)
class _Entry:
    old: int
    new: int
    path: bytes


def read(output: bytes) -> Difference:
    """Understand `git diff-tree --raw -r -t -z` from the lower commit to the upper one."""
    entries = list(_entries(output))
    files = [one for one in entries if _TREE not in (one.old, one.new)]
    written = tuple(
        one.path for one in files if one.new and (one.old, one.new) != (_SUBMODULE, _SUBMODULE)
    )
    more = sum(not one.old for one in files) - sum(not one.new for one in files)
    return Difference(len(files), more, written, tuple(_topmost_gone(entries)))


def _entries(output: bytes) -> Iterator[_Entry]:
    fields = iter(output.split(b"\0"))
    for head in fields:
        if head:
            old, new, *_ = head.removeprefix(b":").split(b" ")
            yield _Entry(int(old, 8), int(new, 8), next(fields))


def _topmost_gone(entries: Sequence[_Entry]) -> Iterator[bytes]:
    came = {one.path: one.new for one in entries if one.new}
    hidden: set[bytes] = set()
    for path in sorted(one.path for one in entries if not one.new):
        if any(path[:end] in hidden for end in _slashes(path)):
            continue
        kind = came.get(path)
        if kind is None:
            yield path
        # The place of a submodule is an empty directory, which hides nothing.
        if kind not in (_TREE, _SUBMODULE):
            hidden.add(path)


def _slashes(path: bytes) -> Iterator[int]:
    at = path.find(b"/")
    while at != -1:
        yield at
        at = path.find(b"/", at + 1)


def make_whiteouts(tree: Path, paths: Sequence[bytes], owner: Identity) -> None:
    """Hide `paths` of the layers below `tree`, which nobody but the service has written to yet.

    Raises `PermissionError` where the service may not make whiteouts.
    """
    for path in paths:
        *folders, name = path.split(b"/")
        descriptor = os.open(tree, _FOLDER)
        try:
            for folder in folders:
                descriptor = _enter(descriptor, folder, owner)
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=descriptor)
            os.chown(name, owner.uid, owner.gid, dir_fd=descriptor, follow_symlinks=False)
        finally:
            os.close(descriptor)


def _enter(parent: int, name: bytes, owner: Identity) -> int:
    """The directory `name` of `parent`, made unless it is there, in place of `parent`."""
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
        made = True
    except FileExistsError:
        made = False
    inner = os.open(name, _FOLDER, dir_fd=parent)
    if made:
        os.fchmod(inner, 0o755)
        os.fchown(inner, owner.uid, owner.gid)
    os.close(parent)
    return inner
