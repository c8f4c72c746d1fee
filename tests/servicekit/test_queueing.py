"""A queue that refuses early."""

import asyncio
import time

import pytest

from servicekit import calls
from servicekit.queueing import Queue
from servicekit.rates import Overloaded


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def held(queue: Queue, go_on: asyncio.Event) -> None:
    async with queue.place():
        await go_on.wait()


async def come(queue: Queue, clock: Clock, takes: float) -> None:
    async with queue.place():
        clock.now += takes


def due_in(seconds: float) -> None:
    calls.begin(calls.Call(deadline=time.monotonic() + seconds))


async def test_so_many_at_once_so_many_wait_and_the_next_is_refused() -> None:
    queue, go_on = Queue("starts", 2, 3), asyncio.Event()
    tasks = [asyncio.create_task(held(queue, go_on)) for _ in range(5)]
    while queue.waiting < 3:  # noqa: ASYNC110 - until all have come.
        await asyncio.sleep(0)
    assert queue.taken == 2
    with pytest.raises(Overloaded) as caught:
        await held(queue, go_on)
    assert caught.value.metadata == {"queue": "starts", "waiting": "3"}
    assert caught.value.retry_after
    tasks[-1].cancel()
    await asyncio.wait([tasks[-1]])
    await asyncio.sleep(0)
    another = asyncio.create_task(held(queue, go_on))
    go_on.set()
    await asyncio.gather(*tasks[:-1], another)
    assert (queue.taken, queue.waiting) == (0, 0)


async def test_what_cannot_be_done_before_its_deadline_is_refused_at_once() -> None:
    clock, go_on = Clock(), asyncio.Event()
    queue = Queue("starts", 1, 100, clock)
    for _ in range(50):
        await come(queue, clock, 4.0)
    first = asyncio.create_task(held(queue, go_on))
    await asyncio.sleep(0)
    due_in(5)
    with pytest.raises(Overloaded, match="in time"):
        await held(queue, go_on)
    due_in(60)
    second = asyncio.create_task(held(queue, go_on))
    go_on.set()
    await asyncio.gather(first, second)
    due_in(5)
    await come(queue, clock, 1.0)  # There is a free slot: nobody knows how long it takes.
