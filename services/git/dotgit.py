"""Reads the private `.git` of a worktree through its layers, as data that nobody believes."""

import errno
import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from services.git.command import is_commit_id
from services.git.process import close_all
from services.git.record import Mode
from services.git.within.system import open_beneath
from services.git.workspace import Workspace

_TEXT_LIMIT: Final = 16 << 20
"""Bytes of packed refs."""
_REF_LIMIT: Final = 8 << 10
"""Bytes of HEAD, or of a ref."""
_BRANCH: Final = re.compile(rb"refs/heads/[^\0\n]+")


def tip(workspace: Workspace) -> str:
    """The commit that HEAD means inside; empty where there is none that can be read."""
    with _Layers(workspace) as layers:
        head = layers.read(b"HEAD", _REF_LIMIT).strip()
        name = head.removeprefix(b"ref: ")
        if name == head:
            return _id(head)
        if not _BRANCH.fullmatch(name) or any(
            part in (b"", b".", b"..") for part in name.split(b"/")
        ):
            return ""
        if found := layers.read(name, _REF_LIMIT).strip():
            return _id(found)
        packed = b"\n" + layers.read(b"packed-refs", _TEXT_LIMIT) + b"\n"
        before, found, _ = packed.partition(b" " + name + b"\n")
        return _id(before[before.rfind(b"\n") + 1 :]) if found else ""


def _id(text: bytes) -> str:
    found = text.decode("ascii", "replace")
    return found if is_commit_id(found) else ""


class _Layers:
    """`.git` of a worktree through its layers, the topmost first."""

    def __init__(self, workspace: Workspace) -> None:
        self._roots: list[int] = []
        self._prefix = "" if workspace.mode is Mode.PLAIN else f"{workspace.mode}.overlay."
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            for path in (workspace.tree, *workspace.paths.layers):
                self._roots.append(os.open(path, flags))
        except OSError:
            close_all(self._roots)
            raise

    def __enter__(self) -> "_Layers":
        return self

    def __exit__(self, *_: object) -> None:
        close_all(self._roots)

    def read(self, path: bytes, limit: int) -> bytes:
        """A file below `.git`; empty where there is none, or what is there is none, or larger."""
        parts = [b".git", *path.split(b"/")]
        hidden = len(self._roots)
        for number in range(hidden):
            if number >= hidden:
                break
            hidden = min(hidden, self._hidden_below(number, parts))
            if (found := self._leaf(number, b"/".join(parts), limit)) is not None:
                return found
        return b""

    def _hidden_below(self, number: int, parts: Sequence[bytes]) -> int:
        """The first layer that this one hides on the way to a path."""
        for count in range(1, len(parts)):
            try:
                directory = open_beneath(
                    self._roots[number], b"/".join(parts[:count]), os.O_RDONLY | os.O_DIRECTORY
                )
            except OSError as error:
                return len(self._roots) if error.errno == errno.ENOENT else number + 1
            try:
                if self._is_marked(directory):
                    return number + 1
            finally:
                os.close(directory)
        return len(self._roots)

    def _is_marked(self, directory: int) -> bool:
        if not self._prefix:
            return False
        with suppress(OSError):
            names = os.listxattr(directory)
            return any(self._prefix + mark in names for mark in ("opaque", "redirect"))
        return False

    def _leaf(self, number: int, path: bytes, limit: int) -> bytes | None:
        """None where the layer has nothing there."""
        try:
            descriptor = open_beneath(self._roots[number], path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            return None if error.errno == errno.ENOENT else b""
        try:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode) or about.st_size > limit:
                return b""
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(limit)
        finally:
            os.close(descriptor)
