"""One object store of one tenant and origin. Everything done to it is done by commands in cells."""

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services.git import partial, refs
from services.git.cell import Bind, Cell, Cells
from services.git.command import Where, git
from services.git.errors import RevisionNotFound
from services.git.partial import Partial
from services.git.transport import STORE

_LEFTOVERS: Final = (
    *("*.lock", "refs/**/*.lock", "shallow_*"),
    *("objects/pack/tmp_*", "objects/pack/.tmp-*", "objects/tmp_objdir-*", "objects/info/*.lock"),
    "objects/??/tmp_obj_*",
)


def head_ref(uid: str) -> str:
    """The ref of a worktree's branch. Named by uid: two may call their branches alike."""
    return f"refs/cove/{uid}/head"


class Repository:
    """One object store. Everything done to it is done by commands in cells."""

    def __init__(self, path: Path, cells: Cells) -> None:
        self.path = path
        self.cells = cells
        self.lock = asyncio.Lock()
        """Held while it is made, freshened or removed; commits go on meanwhile."""
        self.upkeep: asyncio.Task[None] | None = None
        """What is being done to keep it small: it must have ended before it is removed."""
        self.gives_way = False
        """Whether its upkeep keeps `lock`, and is broken off for whoever wants that."""
        self._writers = 0
        self._doubtful = True

    @property
    def partial(self) -> Partial | None:
        """What of its origin it holds; None: all."""
        return partial.read(self.path)

    @property
    def objects(self) -> Path:
        """The directory that sandboxes see read-only."""
        return self.path / "objects"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Entered by whoever writes.

        The first one removes what killed commands left, where there may be some: there are as
        many refs as worktrees, through which nobody should have to look each time.
        """
        if self._writers == 0 and self._doubtful:
            _clear_leftovers(self.path)
            self._doubtful = False
        self._writers += 1
        try:
            yield
        except BaseException:
            self.doubt()
            raise
        finally:
            self._writers -= 1

    def doubt(self) -> None:
        """A command failed, and may have been killed."""
        self._doubtful = True

    def cell(self, *, writable: bool = False) -> Cell:
        """A cell that sees this repository and nothing else."""
        bind = Bind(source=self.path, target=STORE, writable=writable)
        return Cell(identity=self.cells.keeper, binds=[bind])

    def head(self, uid: str) -> str:
        """The head of a worktree's branch, read from its ref; empty before the first commit.

        Raises ValueError where the ref is damaged.
        """
        return refs.find(self.path, head_ref(uid))

    async def resolve(self, name: str) -> str:
        """The commit that a full ref or id names here. Raises `RevisionNotFound`."""
        command = git(Where(git_dir=STORE), "rev-parse", values=[f"{name}^{{commit}}"])
        result = await self.cells.run(self.cell(), command)
        if result.code != 0:
            raise RevisionNotFound("the repository has no such revision", revision=name)
        return result.output.decode().strip()

    async def has(self, commit: str) -> bool:
        """Whether `commit` is here, and is a commit."""
        command = git(Where(git_dir=STORE), "cat-file", ["-t"], values=[commit])
        return (await self.cells.run(self.cell(), command)).output == b"commit\n"

    async def is_ancestor(self, older: str, newer: str) -> bool:
        """Whether `newer` has `older` in its history; so it has, if there is no older one."""
        if not older:
            return True
        options = ["--is-ancestor"]
        command = git(Where(git_dir=STORE), "merge-base", options, values=[older, newer])
        return (await self.cells.run(self.cell(), command)).code == 0

    async def update_refs(self, instructions: Sequence[str]) -> bool:
        """Apply lines of `update-ref --stdin` in one transaction; False if one lost a race."""
        command = git(Where(git_dir=STORE), "update-ref", ["--stdin"])
        stdin = "\n".join(["start", *instructions, "prepare", "commit", ""]).encode()
        with self.writing():
            result = await self.cells.run(self.cell(writable=True), command, stdin)
        if result.code != 0:
            self.doubt()
        return result.code == 0

    async def point(self, uid: str, commit: str) -> None:
        """Make `commit` the head of a new worktree's branch. Raises `RevisionNotFound`."""
        move = f"update {head_ref(uid)} {commit}^{{commit}}"
        if not await self.update_refs([move]) or self.head(uid) != commit:
            if await self.resolve(commit) != commit:
                raise RevisionNotFound("the revision is not a commit", revision=commit)
            raise OSError("the ref of a new worktree cannot be written")

    async def refs(self, *prefixes: str) -> dict[str, str]:
        """Refs below `prefixes` with the objects they name."""
        return await asyncio.to_thread(refs.read, self.path, prefixes)


def _clear_leftovers(path: Path) -> None:
    """Remove locks and half-written objects of commands that were killed."""
    for pattern in _LEFTOVERS:
        for leftover in path.glob(pattern):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
