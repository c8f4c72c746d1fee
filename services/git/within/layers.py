"""Puts the layers of an overlay together, as the kernel does for the program in the sandbox.

What a layer holds is told by a scan of it from outside, which may read the marks that say
"this directory hides what is below it" and "what is below is found at another path". The result
is a *world*: what differs from the tree of the base commit, and only that.
"""

import marshal
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

OPAQUE: Final = "o"
REDIRECT: Final = "r"
CLOSED: Final = "c"
"""Nobody may list it: as it is, it is taken for unchanged."""


class Leaf(NamedTuple):
    """What is no directory, in one of the layers."""

    kind: str
    """`f` file, `l` symlink, `u` a directory that nobody may list, `s` something else."""
    layer: int
    path: bytes
    """Where it is in its own layer."""
    mode: int
    size: int
    mtime: int
    """Nanoseconds, as ctime."""
    ctime: int
    inode: int


class Gone:
    """A mark that hides what is below it."""


GONE: Final = Gone()


@dataclass(slots=True)
class Directory:
    """A directory of the world: what differs from the directory `base` of the base commit."""

    children: "dict[bytes, Directory | Leaf | Gone]" = field(default_factory=dict)
    base: tuple[bytes, ...] | None = None
    """None: nothing shows through."""
    origin: tuple[int, bytes] = (0, b"")
    """The topmost layer that has it, and where it is there."""


@dataclass(slots=True)
class _Raw:
    """A directory of one layer."""

    mark: str
    origin: tuple[int, bytes]
    children: "dict[bytes, _Raw | Leaf | Gone]" = field(default_factory=dict)


def spooled(file: int) -> Any:
    """Scans that the service wrote into a file of memory, as they are many."""
    size = os.fstat(file).st_size
    return marshal.loads(os.pread(file, size, 0))  # noqa: S302 - from the service alone.


def world(scans: Sequence[Sequence[Any]]) -> Directory:
    """What all layers make of the base commit. `scans` are of the topmost layer first."""
    made = Directory({}, ())
    for number in range(len(scans) - 1, -1, -1):
        raw = _parse(number, scans[number])
        under = None if raw.mark == OPAQUE else made
        made = _lay(raw, under, made)
    return made


def _parse(layer: int, scan: Sequence[Any]) -> _Raw:
    """A scan is a list of directories, each after its parent: path, mark, entries."""
    root = _Raw(str(scan[0][1]) if scan else "", (layer, b""))
    known = {b"": root}
    for path_text, mark, entries in scan:
        path = path_text.encode("latin-1")
        if path:
            parent, _, name = path.rpartition(b"/")
            if mark == CLOSED:
                known[parent].children[name] = Leaf("u", layer, path, 0, 0, 0, 0, 0)
                continue
            directory = _Raw(str(mark), (layer, path))
            known[parent].children[name] = directory
            known[path] = directory
        directory = known[path]
        prefix = path + b"/" if path else b""
        for name_text, kind, *rest in entries:
            name = name_text.encode("latin-1")
            if kind == "w":
                directory.children[name] = GONE
            else:
                directory.children[name] = Leaf(kind, layer, prefix + name, *map(int, rest))
    return root


def _lay(raw: _Raw, under: Directory | None, whole: Directory) -> Directory:
    """Lay a directory of a layer over what is `under` it; `whole` is all below the layer."""
    made = Directory(
        dict(under.children) if under else {}, under.base if under else None, raw.origin
    )
    for name, entry in raw.children.items():
        if not isinstance(entry, _Raw):
            made.children[name] = entry
            continue
        below: Directory | None
        if entry.mark == OPAQUE:
            below = None
        elif entry.mark.startswith(REDIRECT):
            target = entry.mark[1:].encode("latin-1")
            below = _find(whole, target) if target.startswith(b"/") else _child(under, target)
        else:
            below = _child(under, name)
        made.children[name] = _lay(entry, below, whole)
    return made


def _child(directory: Directory | None, name: bytes) -> Directory | None:
    if directory is None:
        return None
    found = directory.children.get(name)
    if isinstance(found, Directory):
        return found
    if found is None and directory.base is not None:
        return Directory({}, (*directory.base, name))
    return None


def _find(whole: Directory, path: bytes) -> Directory | None:
    found: Directory | None = whole
    for name in path.strip(b"/").split(b"/"):
        found = _child(found, name)
    return found
