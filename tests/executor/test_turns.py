"""Starts take turns, and no environment keeps others from theirs."""

import asyncio
import os
import signal

from servicekit.queueing import PROCESSORS
from services.executor.store import Store
from services.executor.turns import Turns
from tests.agent.node import until
from tests.executor.node import Node


async def test_an_environment_that_hangs_leaves_turns_to_others(node: Node) -> None:
    """Its agent stands still, and all that it is asked to start waits for that."""
    store = Store(node.state / "executor" / "executions")
    async with node.executor() as caller, node.sandbox() as hung, node.sandbox() as other:
        await caller.execute(hung, "true")
        await caller.execute(other, "true")
        agent = await node.agent_pid(hung)
        os.kill(agent, signal.SIGSTOP)
        try:
            starts = [asyncio.create_task(caller.execute(hung, "echo on")) for _ in range(40)]
            await until(lambda: len(store.ids(hung.uid)) > 1)
            for _ in range(2):
                assert (await caller.execute(other, "echo x")).stdout.text == "x\n"
            assert not any(each.done() for each in starts)
            assert len(store.ids(hung.uid)) < 10, "nothing of those that wait is begun"
        finally:
            os.kill(agent, signal.SIGCONT)
        ended = await asyncio.gather(*starts)
        assert {each.stdout.text for each in ended} == {"on\n"}


async def test_a_turn_that_takes_long_is_given_back() -> None:
    """Whoever hangs in every environment there is has all turns for a second only."""
    turns, hang = Turns(), asyncio.Event()

    async def hanging(uid: str) -> None:
        async with turns.turn(uid):
            await hang.wait()

    hung = [
        asyncio.create_task(hanging(f"{number}")) for number in range(max(4, 2 * PROCESSORS) + 1)
    ]
    await until(lambda: turns.waiting)
    async with asyncio.timeout(60), turns.turn("other"):
        assert not any(each.done() for each in hung)
    hang.set()
    await asyncio.gather(*hung)
    assert turns.waiting == 0
