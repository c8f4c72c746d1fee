"""Who may start a command now.

A start costs processor time, and locks of the kernel that all starts of a node share. Begun all at
once they are done no sooner, and all else of the node waits meanwhile: measured in
docs/decisions/0059-turns.md. So they take turns.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from servicekit.queueing import PROCESSORS, Queue

_STARTS: Final = max(4, 2 * PROCESSORS)
_OWN: Final = _STARTS * 3 // 4
"""Of one environment: one that hangs, or does nothing but start, leaves turns to others."""
_WAITING: Final = 10_000
_LONGEST: Final = 1.0
"""Seconds. A start takes some milliseconds, unless something hangs."""


class Turns:
    """Of all environments of this node."""

    def __init__(self) -> None:
        self._queue = Queue("executions", _STARTS, _WAITING, longest=_LONGEST)
        self._own: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self.waiting = 0

    @asynccontextmanager
    async def turn(self, uid: str) -> AsyncIterator[None]:
        """Wait for a turn, and have it while the block runs. Raises Overloaded."""
        own = self._own.get(uid)
        if own is None:
            own = self._own[uid] = asyncio.Semaphore(_OWN)
        async with AsyncExitStack() as stack:
            self.waiting += 1
            try:
                await stack.enter_async_context(own)
                await stack.enter_async_context(self._queue.place())
            finally:
                self.waiting -= 1
            yield

    def check(self) -> None:
        """Raises Overloaded when a call that comes now would not have its turn in time."""
        self._queue.check()
