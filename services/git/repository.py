"""One object store of one tenant and origin. Everything done to it is done by commands in cells."""

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from services.git import partial, refs
from services.git.cell import Bind, Cell, Cells, Identity
from services.git.command import Where, git
from services.git.errors import CellLost, RevisionNotFound, failed, is_full
from services.git.partial import Partial
from services.git.process import Result, close_all
from services.git.transport import STORE
from services.git.within.store import LOCKED

_TIMEOUT: Final = 60.0
_NOTHING: Final = "0" * 40
_REMEMBERED: Final = 1000
"""Commits that are known to be here."""

_LEFTOVERS: Final = (
    *("*.lock", "refs/**/*.lock", "shallow_*"),
    *("objects/pack/tmp_*", "objects/pack/.tmp-*", "objects/tmp_objdir-*", "objects/info/*.lock"),
)
_LOOSE: Final = "objects/??/tmp_obj_*"


def head_ref(uid: str) -> str:
    """The ref of a worktree's branch. Named by uid: two may call their branches alike."""
    return f"refs/cove/{uid}/head"


def kept_ref(uid: str) -> str:
    """The ref of what is kept of a worktree that is on another node."""
    return f"refs/cove/{uid}/kept"


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
        self._swept = False
        self._unclean = True
        """Whether a command may have left something when it ended."""
        self._here: set[str] = set()

    @property
    def partial(self) -> Partial | None:
        """What of its origin it holds; None: all."""
        return partial.read(self.path)

    @property
    def sandbox(self) -> Identity:
        """Who the sandboxes of its tenant are."""
        return self.cells.sandbox_of(self.path.parent.name)

    @property
    def objects(self) -> Path:
        """The directory that sandboxes see read-only."""
        return self.path / "objects"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Entered by whoever writes. The first one removes what killed commands left.

        Loose objects and packs that were half written, which are in nobody's way, only the very
        first.
        """
        if self._writers == 0 and self._unclean:
            _clear_leftovers(self.path, _LEFTOVERS if self._swept else (*_LEFTOVERS, _LOOSE))
            if not self._swept:
                _clear_halves(self.path)
            self._swept, self._unclean = True, False
        self._writers += 1
        try:
            yield
        except BaseException:
            self._unclean = True
            raise
        finally:
            self._writers -= 1

    def doubt(self) -> None:
        """A command that wrote has failed: it may have been killed."""
        self._unclean = True

    async def undisturbed(self) -> None:
        """Break off its upkeep, if that goes on."""
        task = self.upkeep
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

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
        if commit in self._here:
            return True
        command = git(Where(git_dir=STORE), "cat-file", ["-t"], values=[commit])
        found = (await self.cells.run(self.cell(), command)).output == b"commit\n"
        if found:
            self._here = {*self._here, commit} if len(self._here) < _REMEMBERED else {commit}
        return found

    def forget(self) -> None:
        """Commits that were here may be gone."""
        self._here = set()

    async def is_ancestor(self, older: str, newer: str) -> bool:
        """Whether `newer` has `older` in its history; so it has, if there is no older one."""
        if not older:
            return True
        options = ["--is-ancestor"]
        command = git(Where(git_dir=STORE), "merge-base", options, values=[older, newer])
        return (await self.cells.run(self.cell(), command)).code == 0

    async def update_refs(self, instructions: Sequence[str]) -> bool:
        """Apply lines of `update-ref --stdin` in one transaction; False if one lost a race.

        Raises `DiskFull`.
        """
        command = git(Where(git_dir=STORE), "update-ref", ["--stdin"])
        stdin = "\n".join(["start", *instructions, "prepare", "commit", ""]).encode()
        with self.writing():
            result = await self.cells.run(self.cell(writable=True), command, stdin)
            self._unclean = self._unclean or result.code != 0
        if result.code and is_full(result.errors):
            raise failed(command.name, result.code, result.errors)
        return result.code == 0

    async def land(self, landing: dict[str, Any], pack: list[int], *, timeout: float) -> Result:
        """Take in what comes from the descriptor in `pack`, which is closed, and move a ref.

        As `within.store.land`; how the command ended. Where it went well the ref says whether
        it was moved. Call it while `writing`.
        """
        try:
            answer = await self._call("land", landing, pack, timeout)
        except BaseException:
            self._unclean = True
            raise
        finally:
            close_all(pack)
        if answer.get("moved") in (None, LOCKED):
            await self.move(landing["ref"], landing["old"], landing["new"])
        code = int(answer["code"])
        self._unclean = self._unclean or code != 0
        return Result(code=code, output=b"", errors=str(answer["errors"]))

    async def keep(self, keeping: dict[str, Any], *, timeout: float) -> str:
        """Take in a small pack and its commit, and move a ref, as `within.store.keep`.

        Why git has to judge it: then nothing has happened. Empty where it went well, and the ref
        says whether it was moved. Call it while `writing`.
        """
        command = git(Where(git_dir=STORE), "cat-file")
        payload = {**keeping, "store": STORE, "environment": dict(command.env)}
        try:
            answer = await self._call("keep", payload, (), timeout)
        except BaseException:
            self._unclean = True
            raise
        if answer.get("doubt"):
            return str(answer["doubt"])
        if answer.get("moved") in (None, LOCKED):
            await self.move(keeping["ref"], keeping["old"], keeping["new"])
        return ""

    async def move(self, ref: str, old: str, new: str) -> bool:
        """Move a ref, each side empty where there is none; False if it is not at `old`.

        Call it while `writing`.
        """
        payload = {"store": STORE, "ref": ref, "old": old, "new": new}
        try:
            answer = await self._call("move", payload, (), _TIMEOUT)
        except CellLost:
            self._unclean = True
            raise
        moved = answer.get("moved")
        if moved == LOCKED and self._alone():
            answer = await self._call("move", payload, (), _TIMEOUT)
            moved = answer.get("moved")
        if moved is not None:
            return moved is True
        line = f"update {ref} {new} {old or _NOTHING}" if new else f"delete {ref} {old}"
        return await self.update_refs([line])

    async def _call(
        self, name: str, payload: dict[str, Any], descriptors: Sequence[int], timeout: float
    ) -> dict[str, Any]:
        answer, given = await self.cells.call(
            self.cell(writable=True), name, payload, descriptors, timeout=timeout
        )
        close_all(given)  # None is wanted, whatever the cell says.
        return answer

    def _alone(self) -> bool:
        """Whether only the caller writes: then what is locked was left so, and is so no more."""
        if self._writers > 1:
            return False
        _clear_leftovers(self.path, _LEFTOVERS)
        return True

    async def point(self, uid: str, commit: str, *, known: bool = False) -> None:
        """Make `commit` the head of a new worktree's branch. Raises `RevisionNotFound`.

        `known`: it is here, and is a commit. Call it while `writing`.
        """
        if known and await self.move(head_ref(uid), "", commit):
            return
        move = f"update {head_ref(uid)} {commit}^{{commit}}"
        if not await self.update_refs([move]) or self.head(uid) != commit:
            if await self.resolve(commit) != commit:
                raise RevisionNotFound("the revision is not a commit", revision=commit)
            raise OSError("the ref of a new worktree cannot be written")

    async def refs(self, *prefixes: str) -> dict[str, str]:
        """Refs below `prefixes` with the objects they name."""
        return await asyncio.to_thread(refs.read, self.path, prefixes)


def _clear_leftovers(path: Path, patterns: Sequence[str]) -> None:
    """Remove locks and half-written objects of commands that were killed."""
    for pattern in patterns:
        for leftover in path.glob(pattern):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _clear_halves(path: Path) -> None:
    """Remove packs whose index, which comes last, was never written."""
    for pack in path.glob("objects/pack/pack-*.pack"):
        if not pack.with_suffix(".idx").exists():
            pack.unlink(missing_ok=True)
