"""One commit for all who wait.

While one group is on its way to the disk the next writes gather; they share the commit
after it. How a group is committed is the store's: it sees to it that a write which fails
takes nothing of the others with it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

from services.registry.errors import ShuttingDown

J = TypeVar("J")
R = TypeVar("R")

Commit: TypeAlias = Callable[[Sequence[J]], Awaitable[Sequence[R | Exception]]]
"""Makes all of a group durable, and tells for each how it ended. Raises for all."""

_MAX_GROUP: Final = 512


class Observe(Protocol):
    """Is told of each commit, how many writes it had, and how long it took."""

    def __call__(self, writes: int, seconds: float, *, failed: bool) -> None: ...


def unobserved(writes: int, seconds: float, *, failed: bool) -> None:
    """Nobody wants to know."""


class Writer(Generic[J, R]):
    """Hands groups of jobs to `commit`, one group at a time, in the order they came.

    `committed` is called in the order of the commits, with what the jobs of one group
    returned, before anyone who waits for it goes on. Lives on one event loop.
    """

    def __init__(
        self,
        commit: Commit[J, R],
        committed: Callable[[Sequence[R]], None],
        *,
        observe: Observe = unobserved,
        max_group: int = _MAX_GROUP,
    ) -> None:
        self._commit = commit
        self._committed = committed
        self._observe = observe
        self._max_group = max_group
        self._jobs: deque[tuple[J, asyncio.Future[R]]] = deque()
        self._more = asyncio.Event()
        self._closed = False
        self.groups = 0
        self._task = asyncio.create_task(self._run())

    @property
    def waiting(self) -> int:
        """Jobs that no commit has taken yet."""
        return len(self._jobs)

    async def run(self, job: J) -> R:
        """Returns once the job is durable; raises what it ended with.

        A caller who is cancelled meanwhile does not know whether it was done.
        """
        if self._closed:
            raise ShuttingDown("the registry is stopping")
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._jobs.append((job, future))
        self._more.set()
        return await future

    async def close(self) -> None:
        """Finish what is waiting, then end."""
        self._closed = True
        self._more.set()
        await self._task

    async def _run(self) -> None:
        while self._jobs or not self._closed:
            if not self._jobs:
                self._more.clear()
                await self._more.wait()
                continue
            size = min(len(self._jobs), self._max_group)
            group = [self._jobs.popleft() for _ in range(size)]
            self._finish([future for _, future in group], await self._results(group))

    async def _results(
        self, group: Sequence[tuple[J, asyncio.Future[R]]]
    ) -> Sequence[R | Exception]:
        began = time.monotonic()
        try:
            results = await self._commit([job for job, _ in group])
        except Exception as error:  # Nobody must wait for ever.
            self._observe(len(group), time.monotonic() - began, failed=True)
            return [error] * len(group)
        self._observe(len(group), time.monotonic() - began, failed=False)
        self.groups += 1
        return results

    def _finish(
        self, futures: Sequence[asyncio.Future[R]], results: Sequence[R | Exception]
    ) -> None:
        self._committed([result for result in results if not isinstance(result, Exception)])
        for future, result in zip(futures, results, strict=True):
            if future.done():  # Its caller is gone.
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
