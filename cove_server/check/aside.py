"""`lost+found`: where goes what nobody knows and may be somebody's work."""

import os
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent.removal import remove_tree
from cove_server.check.node import LOST

_NOTE: Final = "NOTE"


class Aside:
    """Moves things below the state directory out of the way, each with a note."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def move(self, path: str, owner: str, why: str) -> str:
        """Move what is at `path` to the folder of `owner`; says where it is."""
        folder = self._folder(owner, why)
        target = folder / path.replace("/", "--")
        number = 0
        while os.path.lexists(target):
            number += 1
            target = folder / f"{path.replace('/', '--')}.{number}"
        (self._state / path).rename(target)
        _sync(folder)
        _sync((self._state / path).parent)
        return f"moved to {target.relative_to(self._state)}"

    def copy(self, path: str, owner: str, why: str) -> None:
        """The same for what is still needed where it is."""
        target = self._folder(owner, why) / path.replace("/", "--")
        argv = ["cp", "-a", "--reflink=auto", "--sparse=auto", "-T", "--"]
        subprocess.run([*argv, self._state / path, target], check=True, capture_output=True)

    def _folder(self, owner: str, why: str) -> Path:
        folder = self._state / LOST / owner
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._state / LOST).chmod(0o700)
        with (folder / _NOTE).open("a") as note:
            note.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {why}\n")
        return folder


def remove(path: Path) -> str:
    """Remove what holds no work."""
    if path.is_dir() and not path.is_symlink():
        parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with suppress(FileNotFoundError):
                remove_tree(os.fsencode(path.name), parent, unlock=True)
        finally:
            os.close(parent)
    else:
        path.unlink(missing_ok=True)
    return "removed"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
