"""Contents of files of the layers, and the ids that git gives them."""

import os
import stat
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha1
from typing import Final, NamedTuple

from services.git.within.layers import Leaf
from services.git.within.objects import FILE, LINK, PROGRAM, object_id
from services.git.within.system import open_beneath

MAX_BYTES: Final = 2 << 30
"""Of a file that can be committed."""
_KEPT: Final = 1 << 20
"""Files up to this size are read once, and kept."""
_KEPT_TOTAL: Final = 64 << 20
_CHUNK: Final = 1 << 18
_CACHED: Final = 200_000
_SETTLED: Final = 100_000_000
"""Nanoseconds that a file must not have changed for its id to be remembered: more than a tick."""


class Blob(NamedTuple):
    """What git would keep of a file."""

    id: str
    size: int


class UnreadableError(Exception):
    """A file cannot be read, is no file any more, or changes while it is read."""


class Files:
    """Reads the files of the layers, whose directories are `roots`."""

    def __init__(self, roots: Sequence[str]) -> None:
        self._roots = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in roots]
        self._known: OrderedDict[tuple[int, ...], Blob] = OrderedDict()
        self._kept: dict[str, bytes] = {}
        self._kept_bytes = 0

    def close(self) -> None:
        for root in self._roots:
            os.close(root)

    def forget_contents(self) -> None:
        """Of the last operation."""
        self._kept.clear()
        self._kept_bytes = 0

    def doubt(self, leaf: Leaf) -> None:
        """Its content is not what it was taken for, as a mapping of it changes no times."""
        self._known.pop(_key(leaf), None)

    def mode(self, leaf: Leaf) -> int:
        """As git knows it."""
        if leaf.kind == "l":
            return LINK
        return PROGRAM if leaf.mode & 0o100 else FILE

    def blob(self, leaf: Leaf, *, keep: bool = False) -> Blob:
        """The content as it is now. `keep`: it is going to be sent. Raises `UnreadableError`."""
        key = _key(leaf)
        found = self._known.get(key)
        if found is not None and (not keep or leaf.size > _KEPT or found.id in self._kept):
            self._known.move_to_end(key)
            return found
        now = time.time_ns()
        if leaf.kind == "l":
            data = self._target(leaf)
            found = Blob(object_id(b"blob", data), len(data))
            self._keep(found.id, data)
            return found
        with self._opened(leaf) as descriptor:
            seen = os.fstat(descriptor)
            if seen.st_size > MAX_BYTES:
                raise UnreadableError
            digest = sha1(b"blob %d\0" % seen.st_size, usedforsecurity=False)
            parts = []
            for data in _chunks(descriptor, seen.st_size):
                digest.update(data)
                if keep and seen.st_size <= _KEPT:
                    parts.append(data)
            found = Blob(digest.hexdigest(), seen.st_size)
            if parts:
                self._keep(found.id, b"".join(parts))
        now_key = (leaf.layer, seen.st_ino, seen.st_ctime_ns, seen.st_mtime_ns, seen.st_size)
        if now_key == key and leaf.ctime < now - _SETTLED:
            self._known[key] = found
            if len(self._known) > _CACHED:
                self._known.popitem(last=False)
        return found

    def _keep(self, identifier: str, data: bytes) -> None:
        if identifier not in self._kept and self._kept_bytes + len(data) <= _KEPT_TOTAL:
            self._kept[identifier] = data
            self._kept_bytes += len(data)

    def text(self, leaf: Leaf, limit: int) -> bytes | None:
        """A small file, or nothing if it is none, or cannot be read."""
        if leaf.kind != "f":
            return None
        try:
            with self._opened(leaf) as descriptor:
                data = b"".join(_chunks(descriptor, min(os.fstat(descriptor).st_size, limit + 1)))
        except UnreadableError:
            return None
        return data if len(data) <= limit else None

    def chunks(self, leaf: Leaf, blob: Blob) -> Iterator[bytes]:
        """The content again; what came after it is not read. Raises `UnreadableError`.

        Whether it is still the same is for the caller to see.
        """
        kept = self._kept.get(blob.id)
        if kept is not None:
            yield kept
        elif leaf.kind == "l":
            yield self._target(leaf)
        else:
            with self._opened(leaf) as descriptor:
                yield from _chunks(descriptor, blob.size)

    @contextmanager
    def _opened(self, leaf: Leaf) -> Iterator[int]:
        try:
            descriptor = open_beneath(
                self._roots[leaf.layer], leaf.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
            )
        except OSError:
            raise UnreadableError from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnreadableError
            yield descriptor
        except OSError:
            raise UnreadableError from None
        finally:
            os.close(descriptor)

    def _target(self, leaf: Leaf) -> bytes:
        parent, _, name = leaf.path.rpartition(b"/")
        try:
            directory = open_beneath(self._roots[leaf.layer], parent, os.O_PATH | os.O_DIRECTORY)
            try:
                return os.readlink(name, dir_fd=directory)
            finally:
                os.close(directory)
        except OSError:
            raise UnreadableError from None


def _key(leaf: Leaf) -> tuple[int, ...]:
    return (leaf.layer, leaf.inode, leaf.ctime, leaf.mtime, leaf.size)


def _chunks(descriptor: int, size: int) -> Iterator[bytes]:
    """The first `size` bytes."""
    todo = size
    while todo:
        data = os.read(descriptor, min(todo, _CHUNK))
        if not data:
            raise UnreadableError
        todo -= len(data)
        yield data
