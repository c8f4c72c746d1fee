"""Who will collide with whom: heads of one repository, merged with each other in pairs.

Nothing is merged for good: what a merge makes is in the memory of its cell, which ends with
it, and the repository is only read. A head may have uncommitted work on it, as a tree; it is
merged as if it were committed. Needs git 2.39, which does many merges in one process.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Final

from servicekit.errors import InvalidArgument
from services.git import conflicts, raw
from services.git.cell import Bind, Cell
from services.git.command import Where, together
from services.git.conflicts import Conflict, Merged
from services.git.errors import TooLarge, failed, is_full
from services.git.mergetree import PLACE, TIMEOUT, Merging, many
from services.git.repository import Repository
from services.git.transport import STORE

HEADS: Final = 32
"""Heads that are compared at once."""
PATHS: Final = 50
"""Paths that are told of each pair; further ones are counted."""
_PATH_BYTES: Final = 16 << 10
_MADE_BYTES: Final = 256 << 20
"""Of all that the merges of one batch make; with more they are done in smaller ones."""
_AT_ONCE: Final = 2
_MADE: Final = "/run/cell/merged"
_WORK: Final = "/run/cell/work"
_QUICK: Final = (("core.fsync", "none"),)
_NEEDED: Final = (2, 39)
_BATCH: Final = 64
_LIMIT: Final = 256 << 20
_CACHED: Final = 1024
_NOBODY: Final = b"Cove <cove@localhost> 0 +0000"
_ID: Final = 41  # With the line's end, as it is printed.


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A commit, empty before the first one, and the tree of the work on it, empty without any."""

    name: str
    commit: str
    tree: str = ""
    objects: Path | None = None
    """Where what is new in the tree is, readable in cells, if it is not in the repository."""


@dataclass(frozen=True, slots=True)
class Paths:
    """What two heads cannot have both: the first conflicts, and how many there are."""

    shown: Sequence[Conflict]
    total: int


@dataclass(frozen=True, slots=True)
class Collision:
    """Two heads, by their names, of which the second to land will have conflicts.

    In these `ours` is what the first one has, `theirs` the second.
    """

    first: str
    second: str
    paths: Paths


class Collisions:
    def __init__(self, merging: Merging) -> None:
        self._merging = merging
        self._cache: OrderedDict[tuple[str, str, str], Paths] = OrderedDict()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def find(self, repository: Repository, heads: Sequence[Head]) -> list[Collision]:
        """Every pair that collides, in the order of the heads.

        Merges are done once for each pair of commits and work, and remembered. Raises
        `InvalidArgument` for more than `HEADS` heads, and `GitTooOld`.
        """
        await self._merging.require(_NEEDED)
        if len(heads) > HEADS:
            raise InvalidArgument("heads", f"at most {HEADS} can be compared at once")
        made = {head.name: stored for head in heads if (stored := _stored(head))}
        ids = {
            head.name: raw.id_of(made[head.name]) if head.name in made else head.commit
            for head in heads
        }
        names = [head.name for head in heads if ids[head.name]]
        objects = [head.objects for head in heads if head.objects is not None]
        found = await self._merged(
            _Place(repository, list(dict.fromkeys(made.values())), objects),
            {_key(repository, ids[one], ids[other]) for one, other in combinations(names, 2)},
        )
        collisions = []
        for one, other in combinations(names, 2):
            key = _key(repository, ids[one], ids[other])
            paths = found.get(key)
            if paths is not None and paths.total:
                called = {ids[one]: one, ids[other]: other}
                paths = _turned(paths, called, swap=key[1] != ids[one])
                collisions.append(Collision(one, other, paths))
        return collisions

    async def _merged(
        self, place: "_Place", keys: set[tuple[str, str, str]]
    ) -> dict[tuple[str, str, str], Paths]:
        found = {}
        for key in keys & self._cache.keys():
            self._cache.move_to_end(key)
            found[key] = self._cache[key]
        todo = sorted(key for key in keys - found.keys() if key[1] != key[2])
        batches = [todo[at : at + _BATCH] for at in range(0, len(todo), _BATCH)]
        while batches:
            batch = batches.pop()
            async with self._slots:
                merged = await place.merge([key[1:] for key in batch])
            if merged is None:
                half = len(batch) // 2
                if not half:
                    raise TooLarge("two heads differ in too much to be compared")
                batches += [batch[:half], batch[half:]]
                continue
            found.update(zip(batch, merged, strict=True))
            self._remember(zip(batch, merged, strict=True))
        return found

    def _remember(self, found: Iterable[tuple[tuple[str, str, str], Paths]]) -> None:
        self._cache.update(found)
        while len(self._cache) > _CACHED:
            self._cache.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where heads are merged: commits that are first `made`, and more `objects` they need."""

    repository: Repository
    made: Sequence[bytes]
    objects: Sequence[Path]

    async def merge(self, pairs: Sequence[tuple[str, str]]) -> list[Paths] | None:
        """Merge each of `pairs`; None where they make too much."""
        where, made = self._where(), self.made
        commands = [raw.writing(made, where, _QUICK)] if made else []
        commands.append(many(where, _QUICK))
        stdin = "".join(f"{one} {other}\n" for one, other in pairs).encode()
        result = await self.repository.cells.run(
            self._cell(), together(*commands), stdin, timeout=TIMEOUT, limit=_LIMIT
        )
        if result.code != 0:
            if is_full(result.errors):
                return None
            raise failed("merge-tree", result.code, result.errors)
        output = result.output[_ID * len(made) :]
        return await asyncio.to_thread(lambda: [*_read(output, pairs)])

    def _cell(self) -> Cell:
        binds = [Bind(source=self.repository.path, target=STORE)]
        binds += [
            Bind(source=path, target=f"{_WORK}/{number}")
            for number, path in enumerate(self.objects)
        ]
        return Cell(
            identity=self.repository.sandbox,
            binds=binds,
            files=raw.files(self.made),
            memories={_MADE: _MADE_BYTES},
            once=True,
        )

    def _where(self) -> Where:
        others = [f"{_WORK}/{number}" for number in range(len(self.objects))]
        alternates = ":".join([f"{STORE}/objects", *others])
        return replace(PLACE, objects=_MADE, alternates=alternates)


def _read(output: bytes, pairs: Sequence[tuple[str, str]]) -> Iterator[Paths]:
    for merged, ids in zip(conflicts.read_many(output), pairs, strict=True):
        yield _paths(merged, ids)


def _paths(merged: Merged, ids: Sequence[str]) -> Paths:
    shown, left = list[Conflict](), _PATH_BYTES
    for conflict in merged.conflicts[:PATHS]:
        path = conflict.path
        for identity in ids:
            path = path.removesuffix(b"~" + identity.encode())
        left -= len(path) + sum(map(len, conflict.related)) + len(conflict.message)
        if left < 0:
            break
        shown.append(replace(conflict, path=path))
    return Paths(tuple(shown), merged.total)


def _turned(paths: Paths, names: Mapping[str, str], *, swap: bool) -> Paths:
    """With heads called by their names, and seen from the other one."""
    shown = []
    for conflict in paths.shown:
        text = conflict.message
        for identity, name in names.items():
            text = text.replace(identity, name)
        ours, theirs = conflict.ours, conflict.theirs
        if swap:
            ours, theirs = theirs, ours
        shown.append(replace(conflict, message=text, ours=ours, theirs=theirs))
    return Paths(tuple(shown), paths.total)


def _stored(head: Head) -> bytes | None:
    """A commit of the work on a head; the same for the same work."""
    if not head.tree:
        return None
    return raw.commit(head.tree, [head.commit] if head.commit else [], _NOBODY, _NOBODY)


def _key(repository: Repository, one: str, other: str) -> tuple[str, str, str]:
    first, second = sorted((one, other))
    return str(repository.path), first, second
