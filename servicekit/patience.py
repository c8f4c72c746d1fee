"""Ends what takes too long, with one timer: one for each call would cost as much as its checks."""

import asyncio
from types import TracebackType
from typing import Any


class Late(TimeoutError):
    """The block was not done in time."""


class Patience:
    """A context manager that gives every block so many `seconds`, of any number of tasks at once,
    and of each task one. Raises `Late` out of a block that takes longer.

    It is of the loop in which it is used first, which it does not look up again: Python 3.11 asks
    the kernel for the number of the process each time.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._since: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> None:
        loop = self._loop = self._loop or asyncio.get_running_loop()
        self._since[_task(loop)] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self.seconds, self._look, loop)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task = _task(self._loop)
        del self._since[task]
        if task in self._late:
            self._late.discard(task)
            # Others may have cancelled it, too.
            if task.uncancel() == 0 and kind is asyncio.CancelledError:
                raise Late from None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the blocks that began long ago; look again when the next one is due."""
        self._timer = None
        for task, since in self._since.items():  # From the oldest on.
            if since + self.seconds > loop.time():
                self._timer = loop.call_at(since + self.seconds, self._look, loop)
                return
            if task not in self._late:
                self._late.add(task)
                task.cancel()


def _task(loop: asyncio.AbstractEventLoop | None) -> asyncio.Task[Any]:
    task = asyncio.current_task(loop)
    assert task is not None
    return task
