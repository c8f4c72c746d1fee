"""Blocks that may take only so long, of many tasks with one timer."""

import asyncio

import pytest

from servicekit.patience import Late, Patience


async def test_what_takes_too_long_is_late_and_nothing_else() -> None:
    patience = Patience(0.05)

    async def taking(event: asyncio.Event) -> str:
        with patience:
            await event.wait()
        return "done"

    never, now = asyncio.Event(), asyncio.Event()
    now.set()
    told = await asyncio.gather(
        *(taking(event) for event in (never, now, never)), return_exceptions=True
    )
    assert [type(each) for each in told] == [Late, str, Late]


async def test_a_task_goes_on_after_it_was_late() -> None:
    patience = Patience(0.02)
    for _ in range(2):
        with pytest.raises(Late), patience:
            await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancel_of_another_counts_for_more() -> None:
    patience, late = Patience(0.02), asyncio.Event()

    async def taking() -> None:
        with patience:
            try:
                await asyncio.Event().wait()
            finally:
                late.set()
                task = asyncio.current_task()
                assert task is not None
                task.cancel()

    task = asyncio.create_task(taking())
    await late.wait()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_fails_in_time_says_so_itself() -> None:
    with pytest.raises(KeyError), Patience(60):
        raise KeyError
