"""Queues in front of what there is little of: bounded, in turn, and refusing early.

A call that could not be done before its deadline is refused when it comes, not when the deadline
has passed: its caller can go elsewhere, and nobody works for it in vain.
"""

import asyncio
import math
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from typing import Final
from weakref import WeakSet

from servicekit import calls
from servicekit.rates import SOON, Overloaded

_WEIGHT: Final = 0.2
_LONGEST: Final = timedelta(seconds=30)
PROCESSORS: Final = len(os.sched_getaffinity(0))


_queues: "Final[WeakSet[Queue]]" = WeakSet()


def waiting() -> Counter[str]:
    """How many wait in the queues of this process, by the names of these."""
    found: Counter[str] = Counter()
    for each in _queues:
        found[each.name] += each.waiting
    return found


class Queue:
    """`slots` at once, and `most` who wait for one.

    Who has had a slot for `longest` seconds goes on without it, so that what hangs holds up nobody.
    """

    def __init__(
        self,
        name: str,
        slots: int,
        most: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        longest: float | None = None,
    ) -> None:
        self.name = name
        self._slots = slots
        self._most = most
        self._clock = clock
        self._longest = longest
        self._free = asyncio.Semaphore(slots)
        _queues.add(self)
        self._usual = 0.0
        """Seconds that one takes, as of late."""
        self.waiting = 0
        self.taken = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a slot, and have it while the block runs. Raises `Overloaded`."""
        self.check()
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        self.taken += 1
        began = self._clock()
        leaving = ExitStack()
        leaving.callback(self._leave, began)
        timer = None
        if self._longest is not None:
            timer = asyncio.get_running_loop().call_later(self._longest, leaving.close)
        try:
            yield
        finally:
            if timer:
                timer.cancel()
            leaving.close()

    def _leave(self, began: float) -> None:
        self._usual += _WEIGHT * (self._clock() - began - self._usual)
        self.taken -= 1
        self._free.release()

    def check(self) -> None:
        """Raises `Overloaded` when who comes now would wait in vain."""
        if not self._free.locked():
            return
        expected = math.ceil((self.waiting + 1) / self._slots) * self._usual
        left = calls.current().remaining()
        late = left is not None and expected + self._usual > left
        if self.waiting >= self._most or late:
            raise Overloaded(
                "this could not be done in time" if late else "too many wait for this",
                retry_after=max(SOON, min(_LONGEST, timedelta(seconds=expected))),
                queue=self.name,
                waiting=str(self.waiting),
            )
