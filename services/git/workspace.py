"""The git state of one worktree: its files, its index, and the cells that see them.

    worktrees/<uid>/tree/               the files; the sandbox writes here
    worktrees/<uid>/gitdir/index/       `index.<commit>`: the index of that head
    worktrees/<uid>/gitdir/scratch-*/   new objects and indexes of one operation
    worktrees/<uid>/view/               what the sandbox sees read-only as .git

The head is what the ref in the repository says, and an index belongs to the
commit in its name, so no crash leaves the two apart.
"""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.git import files
from services.git.cell import MADE, Bind, Cell, Cells
from services.git.command import Where, git
from services.git.repository import Repository

_ROOT: Final = "/run/cell"
_TREE: Final = f"{_ROOT}/tree"
_INDEX: Final = f"{_ROOT}/index"
_STORE: Final = f"{_ROOT}/store"
_SCRATCH: Final = f"{_ROOT}/scratch"
_CONFIG: Final = b"[core]\n\trepositoryformatversion = 0\n\tbare = false\n"
UNBORN: Final = "unborn"


@dataclass(frozen=True, slots=True)
class Scratch:
    """New objects and an index of one operation, which nothing else sees."""

    path: Path

    @property
    def objects(self) -> Path:
        return self.path / "objects"


class Workspace:
    """Makes the cells in which git works on one worktree."""

    def __init__(self, directory: Path, uid: str, repository: Repository, cells: Cells) -> None:
        self.directory = directory
        self.uid = uid
        self.repository = repository
        self.cells = cells
        self.lock = asyncio.Lock()
        """Held while the index or the head is read or changed."""

    @property
    def tree(self) -> Path:
        return self.directory / "tree"

    @property
    def view(self) -> Path:
        return self.directory / "view"

    @property
    def _gitdir(self) -> Path:
        return self.directory / "gitdir"

    @property
    def head(self) -> str:
        """The head of the branch; empty before the first commit."""
        return self.repository.head(self.uid)

    def index_path(self, head: str) -> Path:
        """Where the index of `head` is kept."""
        return self._gitdir / "index" / f"index.{head or UNBORN}"

    async def lay_out(self) -> None:
        """Make the directories, without files of a checkout that was broken off."""
        if self.tree.exists():
            await files.remove_tree(self.tree)
        if self._gitdir.exists():
            await files.remove_tree(self._gitdir)
        sandbox = self.cells.sandbox
        self._gitdir.mkdir(mode=0o755)
        files.make_directory(self._gitdir / "index", sandbox)
        files.make_directory(self.tree, sandbox)
        files.make_directory(self.tree / ".git", sandbox)  # Where the view is bound.

    def cell(
        self,
        head: str,
        *,
        tree_writable: bool = False,
        scratch: Scratch | None = None,
        with_tree: bool = True,
    ) -> Cell:
        """A cell that sees the tree, or an empty one, the index, and the repository's objects."""
        binds = [
            Bind(source=self.tree, target=_TREE, writable=tree_writable),
            Bind(source=self._gitdir / "index", target=_INDEX, writable=True),
            Bind(source=self.repository.objects, target=_STORE),
        ]
        if not with_tree:
            del binds[0]
        if scratch is not None:
            binds.append(Bind(source=scratch.path, target=_SCRATCH, writable=True))
        at = head or "ref: refs/heads/unborn"
        place = _git_dir(head)
        return Cell(
            identity=self.cells.sandbox,
            binds=binds,
            directories=[] if with_tree else [_TREE],
            constants={
                f"{place}/refs/": b"",
                f"{place}/objects/": b"",
                f"{place}/HEAD": f"{at}\n".encode(),
                f"{place}/config": _CONFIG,
            },
            cwd=_TREE,
            once=tree_writable or scratch is not None,
        )

    def where(self, head: str, *, scratch: Scratch | None = None) -> Where:
        """For commands in `cell`: with `scratch` they use its index and write objects there."""
        return Where(
            git_dir=_git_dir(head),
            work_tree=_TREE,
            index=f"{_SCRATCH}/index" if scratch else f"{_INDEX}/index.{head or UNBORN}",
            objects=f"{_SCRATCH}/objects" if scratch else _STORE,
            alternates=_STORE if scratch else "",
        )

    @asynccontextmanager
    async def scratch(self, head: str) -> AsyncIterator[Scratch]:
        """A scratch with a copy of the index of `head`; removed with the block."""
        path = self._gitdir / f"scratch-{secrets.token_hex(8)}"
        sandbox = self.cells.sandbox
        scratch = Scratch(path)
        try:
            files.make_directory(path, sandbox)
            for name in ("objects", "objects/pack", "objects/info"):
                files.make_directory(path / name, sandbox)
            self._copy_index(self.index_path(head), path / "index")
            yield scratch
        finally:
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    def adopt_index(self, scratch: Scratch, head: str) -> None:
        """Make the scratch's index the one of `head`."""
        self._copy_index(scratch.path / "index", self.index_path(head))

    def forget_other_indexes(self, head: str) -> None:
        """Remove the indexes of former heads."""
        keep = self.index_path(head)
        for path in keep.parent.iterdir():
            if path != keep:
                path.unlink(missing_ok=True)

    async def ensure_index(self, head: str) -> None:
        """Rebuild the index of `head` if it was lost. Call it locked."""
        if head and not self.index_path(head).is_file():
            await self.read_tree(head, update=False)

    async def read_tree(self, commit: str, *, update: bool) -> None:
        """Make the index be `commit`, and with `update` the files, too."""
        options = ["--reset", "-u"] if update else ["--reset"]
        where = self.where(commit)
        cell = self.cell(commit, tree_writable=update)
        command = git(where, "read-tree", options, values=[commit])
        await self.cells.check(cell, command, timeout=600)
        if not update:
            refresh = git(where, "update-index", ["-q", "--refresh"])
            await self.cells.run(cell, refresh, timeout=600)

    def _copy_index(self, source: Path, target: Path) -> None:
        files.copy_from_cell(source.parent, source.name, target, self.cells.sandbox)


def _git_dir(head: str) -> str:
    """Of commands in a cell: its content is decided by `head`."""
    return f"{MADE}/{head or UNBORN}"
