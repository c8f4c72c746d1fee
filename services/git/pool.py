"""Keeps cells warm: started when needed, shared, ended when not needed for a while."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.git.warm import Warm

LIMIT: Final = 32
IDLE: Final = 30.0
_AGE: Final = 600.0
Start = Callable[[], Coroutine[Any, Any, Warm]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Of warm cells."""

    limit: int = LIMIT
    """How many there are at once; one more where all are busy and an operation needs another."""
    idle: float = IDLE
    """Seconds after which one that is not used ends."""
    age: float = _AGE
    """Seconds after which one is not used again."""


@dataclass(eq=False, slots=True)
class _Entry:
    key: Hashable
    sources: Sequence[Path]
    starting: asyncio.Task[Warm]
    born: float
    users: int = 0
    timer: asyncio.TimerHandle | None = None

    @property
    def is_lost(self) -> bool:
        """Whether its cell did not start, or has ended."""
        if not self.starting.done():
            return False
        failed = self.starting.cancelled() or self.starting.exception() is not None
        return failed or self.starting.result().lost


class Pool:
    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._entries: dict[Hashable, _Entry] = {}
        """In the order in which they were used last."""
        self._ending: dict[asyncio.Task[None], _Entry] = {}
        self._closed = False

    @asynccontextmanager
    async def using(
        self,
        key: Hashable,
        sources: Sequence[Path],
        start: Start,
        *,
        beyond: bool = False,
    ) -> AsyncIterator[Warm | None]:
        """The cell of `key`, started if need be, which does not end while the block runs.

        None where there is no room for one, unless `beyond`, and once the pool is closed.
        `sources` are the directories that it binds. Raises what `start` does.
        """
        entry = self._entry(key, sources, start, beyond)
        if entry is None:
            yield None
            return
        entry.users += 1
        try:
            yield await asyncio.shield(entry.starting)
        finally:
            entry.users -= 1
            if entry.users == 0:
                self._rest(entry)

    async def drop(self, path: Path) -> None:
        """End all cells that bind something at or below `path`; they are gone then."""

        def binds(entry: _Entry) -> bool:
            return any(source.is_relative_to(path) for source in entry.sources)

        for entry in list(filter(binds, self._entries.values())):
            self._end(entry)
        await self._gone([task for task, entry in self._ending.items() if binds(entry)])

    async def close(self) -> None:
        """End all cells, and keep none from now on."""
        self._closed = True
        for entry in list(self._entries.values()):
            self._end(entry)
        await self._gone(list(self._ending))

    def __len__(self) -> int:
        return len(self._entries)

    def _entry(
        self,
        key: Hashable,
        sources: Sequence[Path],
        start: Start,
        beyond: bool,
    ) -> _Entry | None:
        if self._closed:
            return None
        entry = self._entries.pop(key, None)
        if entry is not None and entry.is_lost:
            self._end(entry)
            entry = None
        if entry is None:
            if not self._make_room() and not beyond:
                return None
            now = asyncio.get_running_loop().time()
            entry = _Entry(key, sources, asyncio.create_task(start()), now)
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        self._entries[key] = entry
        return entry

    def _make_room(self) -> bool:
        if len(self._entries) < self._bounds.limit:
            return True
        idle = next((entry for entry in self._entries.values() if entry.users == 0), None)
        if idle is None:
            return False
        self._end(idle)
        return True

    def _rest(self, entry: _Entry) -> None:
        """Nobody uses it now."""
        if self._entries.get(entry.key) is not entry:
            return
        loop = asyncio.get_running_loop()
        old = loop.time() - entry.born > self._bounds.age
        if old or entry.is_lost or len(self._entries) > self._bounds.limit:
            self._end(entry)
        else:
            entry.timer = loop.call_later(self._bounds.idle, self._end, entry)

    def _end(self, entry: _Entry) -> None:
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        ending = asyncio.get_running_loop().create_task(_end(entry.starting))
        self._ending[ending] = entry
        ending.add_done_callback(self._ending.pop)

    async def _gone(self, endings: Sequence[asyncio.Task[None]]) -> None:
        if endings:
            await asyncio.wait(endings)


async def _end(starting: asyncio.Task[Warm]) -> None:
    with suppress(Exception):  # Whoever waited for it was told.
        await (await starting).end()


def identities(sources: Sequence[Path]) -> tuple[tuple[int, int], ...]:
    """What tells apart directories that had the same name, one after the other. Raises OSError."""
    found = (os.stat(source) for source in sources)  # noqa: PTH116
    return tuple((each.st_dev, each.st_ino) for each in found)
