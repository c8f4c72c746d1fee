"""Checks the descriptors that an agent hands out. It is not believed."""

import ctypes
import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from services.executor.errors import AgentUnavailable

_PARTS: Final = ("git/worktrees", "provider/environments")
"""Below the state directory: where worktrees are, and home and tmp."""
_OVERLAYFS: Final = 0x794C7630
"""OVERLAYFS_SUPER_MAGIC of linux/magic.h."""
_STATFS_BYTES: Final = 256
"""More than a `struct statfs`, whose first field is the type."""
_libc = ctypes.CDLL(None, use_errno=True)


class Places:
    """Where the files of an environment may be: on the file systems that hold its parts."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def check(self, uid: str, descriptor: int, kind: int, access: int) -> os.stat_result:
        """What the descriptor is. Raises AgentUnavailable unless it is what was asked for.

        `kind` is S_IFREG, S_IFDIR, or 0 for anything, `access` O_RDONLY, O_WRONLY or O_PATH. Only
        files and directories are ever read or written, so nothing waits; and only on the file
        systems of the environment's own parts, or an overlay, which /proc and /dev are not.
        """
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        found = os.fstat(descriptor)
        if access == os.O_PATH:
            right = bool(flags & os.O_PATH)
        else:
            right = not flags & os.O_PATH and flags & os.O_ACCMODE == access
        if not right or (kind and stat.S_IFMT(found.st_mode) != kind):
            raise AgentUnavailable("the agent opened something else", uid=uid)
        if found.st_dev not in self._devices(uid) and not _is_on_overlay(descriptor):
            raise AgentUnavailable("the agent opened a file of another file system", uid=uid)
        return found

    def _devices(self, uid: str) -> set[int]:
        paths = (self._state, *(self._state / part / uid for part in _PARTS))
        trees = (self._state / _PARTS[0] / uid / "tree",)
        return {path.stat().st_dev for path in (*paths, *trees) if path.exists()}


def _is_on_overlay(descriptor: int) -> bool:
    """An overlay is a file system of its own, whose number nobody outside of its sandbox knows."""
    found = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.fstatfs(descriptor, found) != 0:
        return False
    return ctypes.c_long.from_buffer(found).value == _OVERLAYFS
