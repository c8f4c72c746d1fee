"""What worktrees stand on, and what of git nobody stands on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

from cove_server.check.aside import Aside
from cove_server.check.finding import Finding
from cove_server.check.node import Node
from services.git import mending
from services.git.cell import Cells
from services.git.record import Record

_BACKUP: Final = "Restore a backup; what is there of the workspace can still be copied out of it."
_FILLED: Final = "`cove status` of the workspace fills it again."


class Git:
    def __init__(self, node: Node, cells: Cells, aside: Aside) -> None:
        self._node = node
        self._root = node.state / "git"
        self._mender = mending.Mender(cells)
        self._aside = aside
        self._records = [each.record for each in node.worktrees.values() if each.record]

    async def look(self, *, deep: bool) -> AsyncIterator[Finding]:
        for each in self._lacks():
            yield each
        # While the suite runs it removes these itself, and makes them before it says so.
        if not self._node.running:
            for each in self._layers():
                yield each
        for path in await asyncio.to_thread(self._repositories):
            if found := self._refs(path):
                yield found
            if deep and (said := await self._mender.fsck(path)):
                yield Finding("repository-damaged", self._name(path), said, remedy=_BACKUP)

    def _lacks(self) -> Iterator[Finding]:
        for record in self._records:
            if record.uid in self._node.busy:
                continue
            for lack in mending.lacks(self._root, record):
                mend, remedy = None, _BACKUP
                if lack.kind == "ref-missing":
                    mend = self._pointing(record)
                elif lack.kind == "checkout-missing":
                    remedy = _FILLED
                yield Finding(lack.kind, record.uid, lack.found, mend, remedy)

    def _layers(self) -> Iterator[Finding]:
        for name in mending.unknown_layers(self._root, self._records):
            yield Finding(
                "layer-unknown",
                f"git/layers/{name}",
                "no worktree stands on it",
                self._moving(f"git/layers/{name}"),
            )

    def _refs(self, path: Path) -> Finding | None:
        own = [each for each in self._records if mending.repository_of(self._root, each) == path]
        found = mending.unknown_refs(path, own)
        if not found:
            return None

        async def mend() -> str:
            if not await self._mender.set_aside(path, found):
                raise OSError("git did not move them")
            return "kept below refs/lost of the same repository"

        names = ", ".join(sorted(found)[:3]) + (", ..." if len(found) > len(own) + 3 else "")
        return Finding("ref-unknown", self._name(path), f"of no worktree: {names}", mend)

    def _pointing(self, record: Record) -> Callable[[], Awaitable[str]]:
        async def mend() -> str:
            path = mending.repository_of(self._root, record)
            commit = await self._mender.point(path, record)
            if not commit:
                raise OSError("no head that is known of it is in the repository")
            return f"set to {commit}, the last head that is known"

        return mend

    def _moving(self, path: str) -> Callable[[], Awaitable[str]]:
        async def mend() -> str:
            return self._aside.move(path, "layers", f"no worktree stands on {path}")

        return mend

    def _repositories(self) -> list[Path]:
        return sorted((self._root / "repositories").glob("*/*.git"))

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._node.state))
