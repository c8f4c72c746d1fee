"""The read-only checkouts that worktrees are layers over: filled once, kept while there is room.

    checkouts/<tenant>/<key>/<commit>/tree/        the files, and the start of a `.git`
    checkouts/<tenant>/<key>/<commit>/meta.json    written last: without it there is no checkout

A commit near to one that is here is kept as a layer over it. What begins with
a dot is half-made or half-removed, and nothing that anybody uses.
"""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from servicekit.disk import full
from services.git import files, filling, shelf
from services.git.beside import beside
from services.git.cell import Cells
from services.git.command import is_commit_id
from services.git.errors import RevisionNotFound
from services.git.filling import Over
from services.git.layers import Difference
from services.git.repository import Repository
from services.git.shelf import Meta

_DEPTH: Final = 8
_NEAR_PATHS: Final = 1000
_NEAR_SHARE: Final = 4
_CANDIDATES: Final = 4
_NOTED: Final = 600.0
"""Seconds: how exactly the disk says when a checkout was used last."""

# The directory of a repository's checkouts, and a commit.
_Key = tuple[Path, str]
_Lower = tuple[_Key, Difference]


@dataclass(frozen=True, slots=True)
class Checkout:
    """A commit's files: `layers` are directories of an overlay, the topmost first."""

    commit: str
    layers: tuple[Path, ...]


@dataclass(slots=True)
class _Kept:
    checkout: Checkout
    meta: Meta
    used: float

    @property
    def directory(self) -> Path:
        return self.checkout.layers[0].parent


@dataclass(slots=True)
class _Fill:
    task: asyncio.Task[Checkout]
    waiting: int = 0


class Checkouts:
    """All checkouts of this node. One process owns the directory."""

    def __init__(
        self,
        root: Path,
        cells: Cells,
        limit: int,
        used: Callable[[], Iterable[tuple[Path, str]]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`used` names what worktrees stand on: the path of a repository, and a commit.

        `limit` in bytes is exceeded only by what is in use.
        """
        self._root = root
        self._cells = cells
        self._limit = limit
        self._used = used
        self._clock = clock
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()  # The least recently used first.
        self._fills: dict[_Key, _Fill] = {}
        self._held: Counter[_Key] = Counter()
        self._work: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Find what is here, and begin to remove what is not whole."""
        shelf.make(self._root)
        found, strays = await asyncio.to_thread(shelf.read, self._root)
        for one in found:
            checkout = Checkout(one.meta.commit, one.layers)
            self._kept[one.directory.parent, one.meta.commit] = _Kept(checkout, one.meta, one.used)
        for stray in strays:
            self._begin(self._remove(shelf.hide(stray)))

    async def close(self) -> None:
        """Break off what is being filled, and wait for what is being removed."""
        fills = [fill.task for fill in self._fills.values()]
        for task in fills:
            task.cancel()
        await asyncio.gather(*fills, return_exceptions=True)
        while self._work:
            await asyncio.wait(self._work)

    @contextmanager
    def held(self, repository: Repository, commit: str) -> Iterator[None]:
        """Keep a checkout, here or still to come, from being removed until `used` names it."""
        with self._holding((self._home(repository.path), commit)):
            yield

    def find(self, repository: Repository, commit: str) -> Checkout | None:
        """The checkout of `commit` if it is here."""
        key = (self._home(repository.path), commit)
        kept = self._kept.get(key)
        if kept is None:
            return None
        self._kept.move_to_end(key)
        now = self._clock()
        if abs(now - kept.used) > _NOTED:
            kept.used = now
            shelf.note(kept.directory, now)
        return kept.checkout

    async def get(self, repository: Repository, commit: str) -> Checkout:
        """The checkout of `commit`, filled if it is not here.

        Raises `RevisionNotFound`, `PathForbidden`, `DiskFull`, `GitTimedOut`, and what
        `errors.failed` makes; nothing is left then.
        """
        if found := self.find(repository, commit):
            return found
        key = (self._home(repository.path), commit)
        fill = self._fills.get(key) or self._start(key, repository)
        fill.waiting += 1
        try:
            return await asyncio.shield(fill.task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if fill.task.cancelled() and not (current and current.cancelling()):
                raise RevisionNotFound("the repository was removed", revision=commit) from None
            raise
        finally:
            fill.waiting -= 1
            if not fill.waiting and not fill.task.done():
                self._fills.pop(key, None)
                fill.task.cancel()

    async def trim(self) -> None:
        """Remove what was not used for longest and is not needed, until under the limit.

        It is out of sight at once; its removal goes on afterwards.
        """
        self._trim()

    async def forget(self, repository: Repository) -> None:
        """Remove all checkouts of a repository that nobody uses any more."""
        home = self._home(repository.path)
        while fills := [fill.task for key, fill in self._fills.items() if key[0] == home]:
            for task in fills:
                task.cancel()
            await asyncio.wait(fills)
        for key in [key for key in self._kept if key[0] == home]:
            del self._kept[key]
        if home.exists():
            self._begin(self._remove(shelf.hide(home)))

    def _home(self, path: Path) -> Path:
        """Where the checkouts of the repository at `path` are."""
        return self._root / path.parent.name / path.name.removesuffix(".git")

    def _start(self, key: _Key, repository: Repository) -> _Fill:
        task = asyncio.create_task(self._fill(key, repository))
        fill = self._fills[key] = _Fill(task)

        def ended(_: object) -> None:
            if self._fills.get(key) is fill:
                del self._fills[key]
            if not task.cancelled():
                task.exception()  # All who wait for it may have gone.

        task.add_done_callback(ended)
        return fill

    async def _fill(self, key: _Key, repository: Repository) -> Checkout:
        home, commit = key
        if not is_commit_id(commit):
            raise ValueError("a checkout is of a commit")
        with ExitStack() as stack:
            stack.enter_context(self._holding(key))
            near = [stack.enter_context(self._holding(one)) for one in self._near(home)]
            async with beside(self._nearest(repository, commit, near)) as nearest:
                moment = await filling.date(self._cells, repository, commit)
                lower = await nearest
            if lower is not None:
                with suppress(PermissionError):  # No whiteouts here: then all files.
                    return await self._make(key, repository, moment, lower)
            return await self._make(key, repository, moment, None)

    def _near(self, home: Path) -> list[_Key]:
        """Those of a repository that a layer may lie on, the last used first."""
        keys = (
            key
            for key in reversed(self._kept)
            if key[0] == home and len(self._kept[key].checkout.layers) < _DEPTH
        )
        return list(islice(keys, _CANDIDATES))

    async def _nearest(
        self, repository: Repository, commit: str, near: Sequence[_Key]
    ) -> _Lower | None:
        found = await asyncio.gather(
            *(filling.difference(self._cells, repository, lower, commit) for _, lower in near)
        )
        choice = [
            (difference.changed, lower, difference)
            for lower, difference in zip(near, found, strict=True)
            if difference is not None
            and difference.changed <= _NEAR_PATHS
            and difference.changed * _NEAR_SHARE <= self._kept[lower].meta.files
        ]
        return min(choice)[1:] if choice else None

    async def _make(
        self,
        key: _Key,
        repository: Repository,
        moment: int,
        lower: _Lower | None,
    ) -> Checkout:
        home, commit = key
        below = self._kept[lower[0]].checkout if lower else Checkout("", ())
        directory = shelf.start(home, commit)
        try:
            tree = directory / "tree"
            over = Over(below.layers[0], lower[1]) if lower else None
            filled = await filling.fill(self._cells, repository, commit, tree, moment, over)
            now = self._clock()
            meta = Meta(commit, below.commit, filled.bytes, filled.files, now)
            await asyncio.to_thread(shelf.finish, directory, meta)
            final = directory.rename(home / commit)
        except BaseException as error:
            await asyncio.shield(self._begin(self._remove(directory)))
            if isinstance(error, OSError) and (lacking := full(error.errno)):
                raise lacking from error
            raise
        checkout = Checkout(commit, (final / "tree", *below.layers))
        self._kept[key] = _Kept(checkout, meta, now)
        self._trim()
        return checkout

    def _trim(self) -> None:
        total = sum(kept.meta.bytes for kept in self._kept.values())
        if total <= self._limit:
            return
        needed = {(self._home(path), commit) for path, commit in self._used()}
        needed.update(key for key, count in self._held.items() if count)
        for key in self._spare(needed):
            if total <= self._limit:
                return
            kept = self._kept.pop(key)
            total -= kept.meta.bytes
            self._begin(self._remove(shelf.hide(kept.directory)))

    def _spare(self, needed: set[_Key]) -> Iterator[_Key]:
        """What may go, in the order in which it should: what lies on others goes before them."""
        layers = Counter((key[0], kept.meta.parent) for key, kept in self._kept.items())
        while True:
            key = next((key for key in self._kept if key not in needed and not layers[key]), None)
            if key is None:
                return
            layers[key[0], self._kept[key].meta.parent] -= 1
            yield key

    @contextmanager
    def _holding(self, key: _Key) -> Iterator[_Key]:
        self._held[key] += 1
        try:
            yield key
        finally:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    async def _remove(self, directory: Path) -> None:
        with suppress(OSError):  # The next start tries again.
            await files.remove_tree(directory)
            shelf.sweep(self._root, directory)
