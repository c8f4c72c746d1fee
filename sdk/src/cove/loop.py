"""An event loop in a thread of its own, for callers that are not async."""

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent import futures
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Closed(RuntimeError):
    """A call on a client that is closed, or was closed in the midst of it."""


class Loop(Generic[T]):
    """Runs coroutines for other threads while a context is open.

    It ends with `close`, or when it is collected, or at the latest with the interpreter.
    """

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        started: futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, T]]
        started = futures.Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(_live(opening, started)), name="cove", daemon=True
        )
        self._thread.start()
        self._loop, stop, self.inside = started.result()
        self._lock = threading.RLock()
        self._end = weakref.finalize(self, _stop, self._loop, stop, self._thread)

    def close(self) -> None:
        """Cancel what runs, leave the context, and wait for the end of the thread."""
        with self._lock:
            self._end()

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Wait for the outcome of a coroutine. KeyboardInterrupt cancels it.

        Raises `Closed`.
        """
        call = _Call(coroutine)
        try:
            self._submit(call.begin)
        except RuntimeError:
            coroutine.close()
            raise
        try:
            return call.outcome.result()
        except BaseException:
            if not call.outcome.done():
                with suppress(Closed):
                    self._submit(call.cancel)
                futures.wait([call.outcome])
            raise

    def iterate(self, stream: AsyncGenerator[R, None]) -> Generator[R, None, None]:
        """What a stream yields. It is closed when the reader leaves."""
        try:
            while found := self.run(_next(stream)):
                yield found[0]
        finally:
            # Where this cannot wait, collected in the thread itself, asyncio closes the stream.
            if threading.current_thread() is not self._thread:
                with suppress(Closed):
                    self.run(stream.aclose())

    def _submit(self, step: Callable[[], None]) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("a blocking call cannot be made from the client's own thread")
        with self._lock:  # What is submitted before the stop begins before it.
            if not self._end.alive:
                raise Closed("the client is closed")
            self._loop.call_soon_threadsafe(step)


class _Call(Generic[R]):
    """A coroutine in the loop, and its outcome for the thread that waits."""

    def __init__(self, coroutine: Coroutine[Any, Any, R]) -> None:
        self._coroutine = coroutine
        self._task: asyncio.Task[R] | None = None
        self.outcome: futures.Future[R] = futures.Future()

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._coroutine)
        self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        if self._task:
            self._task.cancel()

    def _end(self, task: asyncio.Task[R]) -> None:
        if task.cancelled():
            self.outcome.set_exception(Closed("the client was closed during the call"))
        elif error := task.exception():
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(task.result())


async def _live(
    opening: Callable[[], AbstractAsyncContextManager[T]],
    started: futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, T]],
) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    try:
        async with opening() as inside:
            started.set_result((loop, stop, inside))
            await stop.wait()
            await _end_all(loop)
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)


async def _end_all(loop: asyncio.AbstractEventLoop) -> None:
    """End all that runs, while the context is still open."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    await loop.shutdown_asyncgens()


def _stop(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(stop.set)
    if threading.current_thread() is not thread:
        thread.join()


async def _next(stream: AsyncGenerator[R, None]) -> list[R]:
    """What comes next; nothing at the end."""
    try:
        return [await anext(stream)]
    except StopAsyncIteration:
        return []
