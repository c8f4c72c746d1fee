"""Who will collide with whom: heads of one repository, merged with each other in pairs.

Nothing is merged for good. A head may have uncommitted work on it, as a tree; it is merged
as if it were committed. Needs git 2.39, which does many merges in one process.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice
from typing import Final

from servicekit.errors import InvalidArgument
from services.git import conflicts, raw
from services.git.command import together
from services.git.conflicts import Kind, Merged
from services.git.errors import failed
from services.git.mergetree import TIMEOUT, Merging, many
from services.git.repository import Repository

HEADS: Final = 32
"""Heads that are compared at once."""
PATHS: Final = 50
"""Paths that are told of each pair; further ones are counted."""
_PATH_BYTES: Final = 16 << 10
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


@dataclass(frozen=True, slots=True)
class Paths:
    """What two heads cannot have both: the first paths, and how many there are."""

    shown: Sequence[tuple[bytes, Kind]]
    total: int


@dataclass(frozen=True, slots=True)
class Collision:
    """Two heads, by their names, of which the second to land will have conflicts."""

    first: str
    second: str
    paths: Paths


class Collisions:
    def __init__(self, merging: Merging) -> None:
        self._merging = merging
        self._cache: OrderedDict[tuple[str, str, str], Paths] = OrderedDict()

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
        found = await self._merged(
            repository,
            list(dict.fromkeys(made.values())),
            {_key(repository, ids[one], ids[other]) for one, other in combinations(names, 2)},
        )
        collisions = []
        for one, other in combinations(names, 2):
            paths = found.get(_key(repository, ids[one], ids[other]))
            if paths is not None and paths.total:
                collisions.append(Collision(one, other, paths))
        return collisions

    async def _merged(
        self, repository: Repository, made: Sequence[bytes], keys: set[tuple[str, str, str]]
    ) -> dict[tuple[str, str, str], Paths]:
        found = {}
        for key in keys & self._cache.keys():
            self._cache.move_to_end(key)
            found[key] = self._cache[key]
        todo = iter(sorted(key for key in keys - found.keys() if key[1] != key[2]))
        with repository.writing():
            while batch := list(islice(todo, _BATCH)):
                merged = await _merge(repository, made, [key[1:] for key in batch])
                found.update(zip(batch, merged, strict=True))
                self._remember(zip(batch, merged, strict=True))
        return found

    def _remember(self, found: Iterable[tuple[tuple[str, str, str], Paths]]) -> None:
        self._cache.update(found)
        while len(self._cache) > _CACHED:
            self._cache.popitem(last=False)


async def _merge(
    repository: Repository, made: Sequence[bytes], pairs: Sequence[tuple[str, str]]
) -> list[Paths]:
    """Write the commits `made`, then merge each of `pairs`."""
    cell = replace(repository.cell(writable=True), files=raw.files(made))
    commands = [raw.writing(made), many()] if made else [many()]
    stdin = "".join(f"{one} {other}\n" for one, other in pairs).encode()
    result = await repository.cells.run(
        cell, together(*commands), stdin, timeout=TIMEOUT, limit=_LIMIT
    )
    if result.code != 0:
        raise failed("merge-tree", result.code, result.errors)
    output = result.output[_ID * len(made) :]
    return await asyncio.to_thread(lambda: [*_read(output, pairs)])


def _read(output: bytes, pairs: Sequence[tuple[str, str]]) -> Iterator[Paths]:
    for merged, ids in zip(conflicts.read_many(output), pairs, strict=True):
        yield _paths(merged, ids)


def _paths(merged: Merged, ids: Sequence[str]) -> Paths:
    shown, left = [], _PATH_BYTES
    for conflict in merged.conflicts[:PATHS]:
        path = conflict.path
        for identity in ids:
            path = path.removesuffix(b"~" + identity.encode())
        left -= len(path)
        if left < 0:
            break
        shown.append((path, conflict.kind))
    return Paths(tuple(shown), merged.total)


def _stored(head: Head) -> bytes | None:
    """A commit of the work on a head; the same for the same work."""
    if not head.tree:
        return None
    return raw.commit(head.tree, [head.commit] if head.commit else [], _NOBODY, _NOBODY)


def _key(repository: Repository, one: str, other: str) -> tuple[str, str, str]:
    first, second = sorted((one, other))
    return str(repository.path), first, second
