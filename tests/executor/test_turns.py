"""Starts take turns, and no environment keeps others from theirs."""

import asyncio
import os
import signal
from functools import partial
from itertools import count

import pytest
from google.rpc.error_details_pb2 import RetryInfo

from servicekit.queueing import PROCESSORS, Queue
from services.executor import turns
from services.executor.store import Store
from services.executor.turns import Turns
from tests.agent.node import until
from tests.executor.node import Node, start
from tests.servicekit.failing import failure


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


async def test_who_would_wait_in_vain_is_told_at_once(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is begun for it; of what was begun before, a repeat is answered all the same."""
    monkeypatch.setattr(turns, "_STARTS", 1)
    monkeypatch.setattr(turns, "_LONGEST", 60.0)
    ticks = count(0, 10)  # By which every start takes ten seconds.
    monkeypatch.setattr(turns, "Queue", partial(Queue, clock=lambda: float(next(ticks))))
    store = Store(node.state / "executor" / "executions")
    async with node.executor() as caller, node.sandbox() as hung, node.sandbox() as other:
        await caller.execute(hung, "true")
        await caller.start(other, "one", "true")
        agent = await node.agent_pid(hung)
        os.kill(agent, signal.SIGSTOP)
        try:
            waiting = asyncio.create_task(caller.execute(hung, "echo on"))
            await until(lambda: len(store.ids(hung.uid)) > 1)
            vain = caller.executions.StartExecution(start(other, "two", "true"), timeout=3)
            failed = await failure(vain)
            assert (failed.reason, failed.info.metadata["queue"]) == ("OVERLOADED", "executions")
            assert failed.detail(RetryInfo) is not None
            assert store.ids(other.uid) == ["one"]
            repeated = start(other, "one", "true")
            await caller.executions.StartExecution(repeated, timeout=9)
        finally:
            os.kill(agent, signal.SIGCONT)
        assert (await waiting).stdout.text == "on\n"


async def test_a_turn_that_takes_long_is_given_back() -> None:
    """Whoever hangs in every environment there is has all turns for a second only."""
    made, hang = Turns(), asyncio.Event()

    async def hanging(uid: str) -> None:
        async with made.turn(uid):
            await hang.wait()

    hung = [
        asyncio.create_task(hanging(f"{number}")) for number in range(max(4, 2 * PROCESSORS) + 1)
    ]
    await until(lambda: made.waiting)
    async with asyncio.timeout(60), made.turn("other"):
        assert not any(each.done() for each in hung)
    hang.set()
    await asyncio.gather(*hung)
    assert made.waiting == 0
