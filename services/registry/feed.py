"""The last changes, in memory, for everyone who watches.

There is one buffer, whatever the number of watchers: each holds only the revision it
has come to. One that falls behind the oldest change in the buffer has lost it.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final, NamedTuple

from services.registry.errors import RevisionCompacted, WatcherTooSlow

_MAX_CHANGES: Final = 4096
_MAX_BYTES: Final = 16 << 20
_BURST: Final = 256
MAX_READ: Final = 2 << 20
"""Bytes that are read for a watcher at once, or one change if that is larger."""


class Event(NamedTuple):
    """One write. Without a document it was a removal."""

    revision: int
    tenant: str
    name: str
    uid: str
    document: bytes | None
    previous: int = 0
    """The revision of what it replaced: 0 where nothing was there, -1 where nobody knows."""

    before: bytes | None = None
    """The document of that; None also where it is kept no longer."""

    @property
    def size(self) -> int:
        return len(self.document or b"") + len(self.before or b"")


def fitting(events: Iterable[Event]) -> list[Event]:
    """As many as are read at once; no more is asked for than one that does not fit."""
    taken: list[Event] = []
    left = MAX_READ
    for event in events:
        left -= event.size
        if taken and left < 0:
            break
        taken.append(event)
    return taken


class Feed:
    """Lives on one event loop. Revisions come in order and without holes."""

    def __init__(
        self, latest: int, *, max_changes: int = _MAX_CHANGES, max_bytes: int = _MAX_BYTES
    ) -> None:
        self._latest = latest
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._max_changes = max_changes
        self._max_bytes = max_bytes
        self._more = asyncio.Event()
        self._restarts: list[int] = []

    @property
    def latest(self) -> int:
        """The revision that was published last."""
        return self._latest

    @property
    def life(self) -> int:
        """Which of its lives it is in: another one after each restart."""
        return len(self._restarts)

    def restart(self, latest: int) -> None:
        """Go on after another revision. Those who wait have lost what is between; those who were
        beyond it have seen what never was."""
        self._events.clear()
        self._bytes = 0
        self._latest = latest
        self._restarts.append(latest)
        self._wake()

    def publish(self, events: Sequence[Event]) -> None:
        """Add changes that are durable. The newest one is kept whatever its size."""
        for event in events:
            self._events.append(event)
            self._bytes += event.size
            self._latest = event.revision
            while len(self._events) > 1 and (
                len(self._events) > self._max_changes or self._bytes > self._max_bytes
            ):
                self._bytes -= self._events.popleft().size
        if events:
            self._wake()

    def holds(self, revision: int) -> bool:
        """Whether everything after `revision` is still here."""
        return revision >= self._latest - len(self._events)

    async def after(self, revision: int, timeout: float, life: int | None = None) -> list[Event]:
        """Some of the changes after `revision`; none when `timeout` seconds passed without.

        `life` is the one in which the revision was come to; unless given, this one. Raises
        `WatcherTooSlow` when they are gone, `RevisionCompacted` when `revision` is another now.
        """
        life = self.life if life is None else life
        if revision >= self._latest:
            try:
                async with asyncio.timeout(timeout):
                    while revision >= self._latest and life == self.life:
                        await self._more.wait()
            except TimeoutError:
                return []
        if life != self.life and (ended := min(self._restarts[life:])) < revision:
            raise RevisionCompacted("the database has lost that revision", oldest=str(ended))
        if life != self.life or not self.holds(revision):
            raise WatcherTooSlow("the watcher fell behind", revision=str(revision))
        start = revision - (self._latest - len(self._events))
        return fitting(islice(self._events, start, start + _BURST))

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()
