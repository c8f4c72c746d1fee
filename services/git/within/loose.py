"""New loose objects: made in a place of their own, and brought in when they are on the disk."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from agent.writeback import write_out

_FAN: Final = 2
"""Letters of an id that name the folder of a loose object."""


class Quarantine:
    """A folder for new objects. What a killed process leaves of one is known by its name."""

    def __init__(self, objects: Path) -> None:
        self._objects = str(objects)
        self._folder = tempfile.mkdtemp(dir=objects, prefix="tmp_objdir-")
        self.environment = {
            "GIT_OBJECT_DIRECTORY": self._folder,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": self._objects,
        }
        """Tells git to write there."""

    def __enter__(self) -> "Quarantine":
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        try:
            os.rmdir(self._folder)
        except OSError:
            shutil.rmtree(self._folder, ignore_errors=True)

    def settle(self) -> None:
        """Move all objects to where they belong, once their contents are on the disk.

        Where a file system keeps the order of its journal, the sync of the ref that is going to
        name them covers the rest; elsewhere each is synced. Raises OSError.
        """
        made = self._made()
        opened = list[int]()
        try:
            for name in made:
                opened.append(os.open(f"{self._folder}/{name}", os.O_RDONLY | os.O_CLOEXEC))
            write_out(opened, self._folder)
        finally:
            for descriptor in opened:
                os.close(descriptor)
        known = set(os.listdir(self._objects))
        for name in made:
            fan = name[:_FAN]
            if fan not in known:
                with suppress(FileExistsError):
                    os.mkdir(f"{self._objects}/{fan}")
                known.add(fan)
            os.rename(f"{self._folder}/{name}", f"{self._objects}/{name}")
        for name in os.listdir(self._folder):
            os.rmdir(f"{self._folder}/{name}")

    def _made(self) -> list[str]:
        folders = [name for name in os.listdir(self._folder) if len(name) == _FAN]
        return [f"{name}/{one}" for name in folders for one in os.listdir(f"{self._folder}/{name}")]
