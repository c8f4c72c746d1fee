"""The stack of a worktree: a file that names the layers between its upper one and its commit.

One name a line, the topmost first. Git changes it, with the worktree's lock held alone; whoever
holds the lock, shared or alone, may read it.
"""

import os
import re
import stat
from typing import Final

MOST: Final = 64
"""Names in it. An overlay has no more layers."""

_NAME: Final = re.compile(r"[a-z2-7]{16}")
_LONGEST: Final = MOST * 17


def read(path: str) -> tuple[str, ...]:
    """The names; none where there is no file. Raises OSError for what is no stack."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return ()
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path}: not a file")
        text = file.read(_LONGEST + 1).decode("ascii", "replace")
    names = text.splitlines()
    if len(text) > _LONGEST or not all(map(_NAME.fullmatch, names)):
        raise OSError(f"{path}: not a stack of layers")
    return tuple(names)
