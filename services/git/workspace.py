"""One worktree as git sees it from outside, and the cells that see it.

    worktrees/<uid>/upper/, work/   what differs from the layers below; the sandbox writes here
    worktrees/<uid>/tree/           instead of these, in mode PLAIN: all files
    worktrees/<uid>/lock            held by the sandbox, shared; alone by who moves layers
    worktrees/<uid>/outside/        what those inside are told: the head after a commit
    worktrees/<uid>/scratch/        new objects of one operation
    layers/<name>/                  frozen upper layers that several worktrees stand on

The head is what the ref in the repository says. `.git` is the sandbox's own: it is
read as data (inside.py), and never used as a repository.
"""

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from servicekit.aside import aside
from servicekit.errors import ServiceError
from services.git import files
from services.git.cell import MADE, Bind, Cell, Cells
from services.git.command import Where, git
from services.git.errors import CellLost, WorktreeNotFound
from services.git.partial import SHALLOW
from services.git.process import close_all, memory_file
from services.git.record import Mode, Record
from services.git.repository import Repository
from services.git.scan import Frozen, Scan, glance, is_little, is_settled, scan, spool

_ROOT: Final = "/run/cell"
_GIT: Final = f"{MADE}/git"
_STORE: Final = f"{_ROOT}/store"
_SCRATCH: Final = f"{_ROOT}/scratch"
_LAYERS: Final = f"{_ROOT}/layers"
_CONFIG: Final = b"[core]\n\trepositoryformatversion = 0\n\tbare = false\n"
_HEAD: Final = b"ref: refs/heads/none\n"
_TIMEOUT: Final = 300.0
_REMEMBERED: Final = 80
"""Heads that the branch had before."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the parts of a worktree are. Nothing of it need exist."""

    directory: Path
    layers: tuple[Path, ...]
    """Frozen ones, the topmost first."""
    lowers: tuple[Path, ...]
    """Of the checkout, below those."""
    plain: bool

    @property
    def tree(self) -> Path:
        """The directory that the sandbox writes to."""
        return self.directory / ("tree" if self.plain else "upper")

    @property
    def work(self) -> Path:
        return self.directory / "work"

    @property
    def lock(self) -> Path:
        return self.directory / "lock"

    @property
    def stack(self) -> Path:
        return self.directory / "stack"

    @property
    def outside(self) -> Path:
        return self.directory / "outside"

    @property
    def scratch(self) -> Path:
        return self.directory / "scratch"


class Astray(NamedTuple):
    """The head inside that was not taken, the head outside at that time, why, and when it is tried
    again, by the monotonic clock."""

    inside: str
    head: str
    error: ServiceError
    again: float


class Workspace:
    """Looks at one worktree, whose layers stay the same."""

    def __init__(
        self, record: Record, paths: Paths, repository: Repository, cells: Cells, frozen: Frozen
    ) -> None:
        self.uid = record.uid
        self.paths = paths
        self.mode = record.mode
        self.checkout = record.checkout
        self.repository = repository
        self.cells = cells
        self.lock = asyncio.Lock()
        """Held while the head is read or moved."""
        self.astray: Astray | None = None
        self.told = ""
        """The head that those inside were told of last."""
        self.counted = ("", ""), (0, 0)
        """Of which head and which commit of the origin it was last counted how far they are apart,
        which stays so."""
        self._led: tuple[str, list[str]] = "", []
        """A head, and those before it from which commits made outside alone led to it."""
        self._variables = {"GIT_SHALLOW_FILE": f"{_STORE}/{SHALLOW}"} if record.depth else {}
        self._frozen = frozen
        self._places = set[str]()
        """Names of what is in use of the scratch."""
        self._littered = False
        """Whether something that was broken off may have left more there."""
        self._answered: tuple[Any, Mapping[str, Any]] | None = None
        """What was asked last of what differs, and the answer, if that is of files that rest."""

    @property
    def tree(self) -> Path:
        return self.paths.tree

    @property
    def head(self) -> str:
        """The head of the branch; empty before the first commit."""
        return self.repository.head(self.uid)

    def committed(self, old: str, new: str) -> None:
        """A commit outside led from `old` to `new`: what is known of the one is known of the
        other, and no git need be asked. Call it locked."""
        (head, theirs), (ahead, behind) = self.counted
        if head == old:
            self.counted = (new, theirs), (ahead + 1, behind)
        before = self._led[1] if self._led[0] == old else []
        self._led = new, [*before[1 - _REMEMBERED :], old]

    def has_led(self, old: str, new: str) -> bool:
        """Whether `old` is known to be before `new`."""
        return self._led[0] == new and old in self._led[1]

    @property
    def is_plain(self) -> bool:
        return self.mode is Mode.PLAIN

    def cell(self) -> Cell:
        """A cell that sees the layers and the repository's objects, and may write to scratch."""
        binds = [
            Bind(source=path, target=f"{_LAYERS}/{number}")
            for number, path in enumerate(self._roots)
        ]
        binds.append(Bind(source=self.repository.objects, target=_STORE))
        binds.append(Bind(source=self.paths.scratch, target=_SCRATCH, writable=True))
        return Cell(
            identity=self.repository.sandbox,
            binds=binds,
            constants={
                f"{_GIT}/refs/": b"",
                f"{_GIT}/objects/": b"",
                f"{_GIT}/HEAD": _HEAD,
                f"{_GIT}/config": _CONFIG,
            },
        )

    def where(self, *, objects: str = _STORE, alternates: str = "") -> Where:
        """For commands in `cell`."""
        return Where(
            git_dir=_GIT, objects=objects, alternates=alternates, variables=self._variables
        )

    def restack(self, layers: tuple[Path, ...]) -> None:
        """Its upper layer was frozen: it stands on these now. Call it locked."""
        self.paths = replace(self.paths, layers=layers)
        self._answered = None

    async def ask(
        self, name: str, head: str, descriptors: Sequence[int] = (), **more: Any
    ) -> Mapping[str, Any]:
        """Have an operation of `within.look` done on the worktree as it is now.

        Raises `WorktreeNotFound` where it was removed meanwhile.
        """
        try:
            return await self._ask(name, head, descriptors, more)
        except (FileNotFoundError, CellLost):
            if self.tree.exists():
                raise
            raise WorktreeNotFound("the worktree was removed", uid=self.uid) from None

    async def _ask(
        self, name: str, head: str, descriptors: Sequence[int], more: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        began = time.time_ns()
        scans = await self._scans() if name in ("changes", "plan") else []
        question = (name, head, scans, more)
        if self._answered is not None and self._answered[0] == question:
            return self._answered[1]
        environment = dict(git(self.where(), "cat-file").env)
        payload = {
            "environment": {**environment, "COVE_SCRATCH": _SCRATCH},
            "roots": [f"{_LAYERS}/{number}" for number in range(len(self._roots))],
            "scans": scans,
            "base": self.checkout,
            "head": head,
            **more,
        }
        with ExitStack() as stack:
            if not is_little(scans):  # Nobody shall wait while a large frame is made of them.
                file = memory_file(b"")
                stack.callback(os.close, file)
                await aside(spool, scans, file)
                payload["scans"], descriptors = None, [*descriptors, file]
            answer = await self._call(name, payload, descriptors)
        if name == "changes":
            self._answered = (question, answer) if is_settled(scans, began) else None
        return answer

    async def _call(
        self, name: str, payload: dict[str, Any], descriptors: Sequence[int]
    ) -> Mapping[str, Any]:
        files.make_directory(self.paths.scratch, self.repository.sandbox)
        if self._littered:
            await asyncio.to_thread(self._tidy)
        try:
            answer, given = await self.cells.call(
                self.cell(), name, payload, descriptors, timeout=_TIMEOUT
            )
        except BaseException:
            self._littered = True
            raise
        close_all(given)
        return answer

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Where]:
        """A place where the planned objects are to be written, and how git sees them there."""
        name = secrets.token_hex(8)
        self._places.add(name)
        try:
            yield self.where(objects=f"{_SCRATCH}/{name}", alternates=_STORE)
        finally:
            self._places.discard(name)
            folder = self.paths.scratch / name
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            self._littered |= folder.exists()

    def in_scratch(self, where: Where) -> Path:
        """Where the objects are on this host that `where` of `scratch` is for."""
        return self.paths.scratch / where.objects.removeprefix(f"{_SCRATCH}/")

    def inside_objects(self) -> Where:
        """How git in `cell` sees the objects that were made inside."""
        here, *others = (f"{_LAYERS}/{number}/.git/objects" for number in range(len(self._roots)))
        return self.where(objects=here, alternates=":".join([_STORE, *others]))

    @property
    def _roots(self) -> tuple[Path, ...]:
        return (self.tree, *self.paths.layers)

    async def _scans(self) -> list[Scan]:
        namespace = "" if self.is_plain else self.mode.value
        frozen = [await self._frozen.scan(path, namespace) for path in self.paths.layers]
        upper = None if self.is_plain else glance(self.tree, namespace)
        if upper is None:
            upper = await asyncio.to_thread(scan, self.tree, namespace)
        return [upper, *frozen]

    def _tidy(self) -> None:
        """Remove what is left in the scratch. What was killed may still be going."""
        for path in self.paths.scratch.iterdir():
            if path.name not in self._places:
                shutil.rmtree(path, ignore_errors=True)
        self._littered = any(path.name not in self._places for path in self.paths.scratch.iterdir())
