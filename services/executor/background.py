"""Work that outlives the call that began it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

from servicekit import calls

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Background:
    """Tasks of one service. On leaving, what must be finished is waited for, the rest ended."""

    def __init__(self) -> None:
        self._endless: set[asyncio.Task[Any]] = set()
        self._finishing: set[asyncio.Task[Any]] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        background = cls()
        try:
            yield background
        finally:
            await background._end()

    async def _end(self) -> None:
        # What ends may begin something more.
        while self._finishing or self._endless:
            await asyncio.gather(*self._finishing, return_exceptions=True)
            for task in self._endless:
                task.cancel()
            await asyncio.gather(*self._endless, return_exceptions=True)

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` to its end, also when the caller leaves before."""
        return await asyncio.shield(self.begin(work))

    def begin(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Start what is soon over by itself, and is not to be broken off."""
        return self._start(work, self._finishing)

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Start what may be broken off at any time."""
        self._start(work, self._endless)

    def _start(
        self, work: Coroutine[Any, Any, T], tasks: set[asyncio.Task[Any]]
    ) -> "asyncio.Task[T]":
        with calls.detached():
            task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(_report)
        return task


def _report(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled() and (error := task.exception()):
        _log.debug("work ended with an error", exc_info=error)
