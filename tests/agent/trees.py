"""Layers made by hand, as git would make them."""

import fcntl
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import overlay
from agent.protocol import Mount, Overlay
from tests.agent.node import Box, Node, new_uid


@dataclass
class Tree:
    """The directories of one workspace."""

    node: Node
    home: Path
    lowers: tuple[str, ...]
    stacked: str = ""
    """The directory of layers, where there is a stack."""

    @property
    def upper(self) -> Path:
        return self.home / "upper"

    @property
    def lock(self) -> Path:
        return self.home / "lock"

    @property
    def stack(self) -> Path:
        return self.home / "stack"

    @property
    def outside(self) -> Path:
        return self.home / "outside"

    @property
    def layers(self) -> Overlay:
        return Overlay(
            lowers=self.lowers,
            upper=str(self.upper),
            work=str(self.home / "work"),
            xattrs=overlay.TRUSTED if self.node.mode == "root" else overlay.USER,
            stack=str(self.stack) if self.stacked else "",
            layers=self.stacked,
        )

    @asynccontextmanager
    async def sandbox(self, **spec: Any) -> AsyncIterator[Box]:
        wanted: dict[str, Any] = {
            "worktree": "",
            "overlay": self.layers,
            "lock": str(self.lock),
            "mounts": (Mount(source=str(self.outside), target="/.cove/git"),),
        }
        async with self.node.sandbox(**(wanted | spec)) as box:
            yield box

    def push(self) -> str:
        """Make the upper layer the topmost of the stack, as git does; returns its name."""
        name = new_uid()
        self.stacked = str(self.node.folder / "l")
        before = self.stack.read_text() if self.stack.exists() else ""
        self.upper.rename(f"{self.stacked}/{name}")
        self.upper.mkdir()
        own(self.node, self.upper)
        self.stack.write_text(f"{name}\n{before}")
        return name

    def locked(self) -> bool:
        """Whether somebody else holds the lock."""
        with self.lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False


def lower(node: Node, files: Mapping[str, str]) -> str:
    """A new layer of `files`."""
    folder = node.directory(f"l/{new_uid()}")
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    own(node, folder)
    return str(folder)


def tree(node: Node, *lowers: str) -> Tree:
    """A new workspace over `lowers`, the topmost first."""
    home = node.directory(f"t/{new_uid()}")
    for name in ("upper", "work", "outside"):
        (home / name).mkdir()
    (home / "lock").touch()
    own(node, home)
    return Tree(node, home, lowers)


def own(node: Node, folder: Path) -> None:
    """Give a directory and all in it to the sandbox's user."""
    if os.getuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, node.sandbox_uid, node.sandbox_uid, follow_symlinks=False)
