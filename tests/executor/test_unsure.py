"""Starts of which nobody knows yet what comes of them: none is forgotten, or told too early."""

import asyncio
import errno
import itertools
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent import frames
from agent.client import AgentClient, Command, PeerGone, Sinks, Started
from cove.errors.v1.errors_pb2 import ErrorReason as Why
from cove.executor.v1 import executor_pb2 as pb
from services.executor import launching
from services.executor.preparing import opened
from services.executor.record import Record, Spec
from services.executor.store import Store
from tests.executor.double import BROKEN_OFF, STARTED, Answer, Double, begin, doubled, refusal
from tests.executor.node import OWNER, Caller, Node, Sandbox, recorded, refused

Code = grpc.StatusCode
HOUR_NS = 3600 * 10**9


@pytest.fixture
def double(node: Node) -> Iterator[Double]:
    with doubled(node) as made:
        yield made


def store_of(node: Node) -> Store:
    return Store(node.state / "executor" / "executions")


def left_over(node: Node, box: Sandbox, *, begun: bool = False) -> Record:
    """What an executor leaves that is killed while it starts one; `begun`: the agent is at it."""
    spec = Spec(script="true", interpreter="sh", timeout_ns=HOUR_NS)
    with recorded(store_of(node), box.uid, "one", spec, 10**18) as record:
        if begun:
            log = os.open(record.folder / "log", os.O_WRONLY | os.O_APPEND)
            begin(log, record.key)
            os.close(log)
        return record


def fails_from(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """From this call on, no descriptor is left to start anything with."""
    calls = 0

    def opening(*arguments: Any) -> tuple[int, int]:
        nonlocal calls
        calls += 1
        if calls >= call:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(*arguments)

    monkeypatch.setattr(launching, "opened", opening)


async def test_a_start_that_may_be_on_its_way_keeps_its_record(
    node: Node, caller: Caller, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    double.starting = lambda _key, _descriptors: BROKEN_OFF
    fails_from(monkeypatch, 2)
    async with refused(Code.UNAVAILABLE, Why.ERROR_REASON_AGENT_UNAVAILABLE):
        await caller.start(double.box, "one", "true")
    assert store_of(node).read(double.box.uid, "one")
    monkeypatch.undo()
    double.starting = lambda _key, _descriptors: STARTED
    await caller.start(double.box, "one", "true")
    assert len(double.starts) == 2
    assert len(set(double.starts)) == 1


async def test_a_start_outlasts_agents_that_leave_one_after_the_other(
    caller: Caller, double: Double
) -> None:
    """As for forks, each of which has one leave in which nothing runs."""
    leaving = 6
    double.starting = lambda _key, _descriptors: (
        BROKEN_OFF if len(double.starts) <= leaving else STARTED
    )
    await caller.start(double.box, "one", "true")
    assert len(double.starts) == leaving + 1
    assert len(set(double.starts)) == 1


async def test_a_start_finds_the_agent_that_came_after_the_one_that_left(
    caller: Caller, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = AgentClient.start

    async def nobody(*_arguments: Any) -> Started:
        monkeypatch.setattr(AgentClient, "start", start)
        raise PeerGone("nobody listens") from ConnectionRefusedError()

    monkeypatch.setattr(AgentClient, "start", nobody)
    await caller.start(double.box, "one", "true")
    assert len(double.starts) == 1


async def test_agents_that_leave_before_they_are_asked_are_none(
    caller: Caller, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, leaving = double.answer, iter(range(4))

    def leave(kind: int, payload: bytes, descriptors: Sequence[int]) -> Answer:
        left = kind == frames.HELLO and next(leaving, None) is not None
        return BROKEN_OFF if left else answer(kind, payload, descriptors)

    monkeypatch.setattr(double, "answer", leave)
    await caller.start(double.box, "one", "true")
    assert next(leaving, None) is None
    assert len(double.starts) == 1


async def test_a_prepared_start_whose_answer_is_lost_runs_once(
    caller: Caller, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = AgentClient.run

    async def unanswered(agent: AgentClient, token: str, key: str, command: Command) -> Started:
        await run(agent, token, key, command)
        fails_from(monkeypatch, 1)
        raise PeerGone("no reply in time")

    monkeypatch.setattr(AgentClient, "run", unanswered)
    async with refused(Code.UNAVAILABLE, Why.ERROR_REASON_AGENT_UNAVAILABLE):
        for name in map("e{}".format, itertools.count()):  # Until one was prepared.
            await caller.start(box, name, f"echo x >> {name}")
            await caller.wait(box, name)
    monkeypatch.undo()
    await caller.start(box, name, f"echo x >> {name}")
    assert (await caller.wait(box, name)).exit.code == 0
    assert (box.tree / name).read_text() == "x\n"


async def test_one_that_a_dead_executor_began_keeps_its_record(
    node: Node, caller: Caller, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = left_over(node, double.box)
    fails_from(monkeypatch, 1)
    async with refused(Code.UNAVAILABLE, Why.ERROR_REASON_AGENT_UNAVAILABLE):
        await caller.start(double.box, "one", "true")
    monkeypatch.undo()
    await caller.start(double.box, "one", "true")
    assert double.starts == [record.key]


async def test_one_that_a_dead_executor_began_outlasts_an_agent_of_another_version(
    node: Node, caller: Caller, double: Double
) -> None:
    record = left_over(node, double.box)
    double.version = 99
    async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_AGENT_TOO_OLD):
        await caller.start(double.box, "one", "true")
    assert store_of(node).read(double.box.uid, "one") == record


async def test_a_start_that_surely_was_not_asked_for_frees_its_id(
    node: Node, caller: Caller, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_from(monkeypatch, 1)
    with pytest.raises(grpc.aio.AioRpcError):
        await caller.start(double.box, "one", "true")
    assert not double.starts
    assert store_of(node).read(double.box.uid, "one") is None


async def test_what_only_becomes_a_command_is_not_told_as_started(
    node: Node, caller: Caller, double: Double
) -> None:
    record = left_over(node, double.box, begun=True)
    double.listed[record.key] = 0

    def fails(_key: str, descriptors: Sequence[int]) -> Answer:
        double.listed.clear()
        os.ftruncate(descriptors[0], 0)
        return refusal(frames.PROGRAM_NOT_FOUND)

    double.starting = fails
    async with refused(Code.NOT_FOUND, Why.ERROR_REASON_PROGRAM_NOT_FOUND):
        await caller.start(double.box, "one", "true")
    assert store_of(node).read(double.box.uid, "one") is None


@pytest.mark.parametrize("listed", [False, True])
async def test_what_nobody_knows_to_run_is_not_told_as_started(
    node: Node, caller: Caller, double: Double, listed: bool
) -> None:
    record = left_over(node, double.box, begun=True)
    double.starting = lambda _key, _descriptors: BROKEN_OFF
    double.listed[record.key] = 0
    double.listing = double.rows if listed else lambda: BROKEN_OFF
    async with refused(Code.UNAVAILABLE, Why.ERROR_REASON_AGENT_UNAVAILABLE):
        await caller.start(double.box, "one", "true")
    assert store_of(node).read(double.box.uid, "one") == record


async def test_what_is_known_to_run_is_told_so_while_the_agent_says_nothing(
    caller: Caller, double: Double
) -> None:
    def begins(key: str, descriptors: Sequence[int]) -> Answer:
        begin(descriptors[0], key)
        double.listing = lambda: BROKEN_OFF
        return STARTED

    double.starting = begins
    await caller.start(double.box, "one", "true")
    again = await caller.start(double.box, "one", "true")
    assert again.state == pb.Execution.STATE_RUNNING
    assert len(double.starts) == 1


async def test_what_failed_to_become_a_command_is_not_lost(
    node: Node, caller: Caller, double: Double
) -> None:
    record = left_over(node, double.box, begun=True)

    def undone() -> Answer:
        os.truncate(record.folder / "log", 0)
        return double.rows()

    double.listing = undone
    assert (await caller.get(double.box, "one")).state == pb.Execution.STATE_STARTING
    await caller.start(double.box, "one", "true")
    assert double.starts == [record.key]


async def test_the_agent_tells_what_only_becomes_a_command(
    node: Node, box: Sandbox, tmp_path: Path
) -> None:
    sinks = sinks_in(tmp_path)
    async with AgentClient.connect(node.runtime / "a" / box.uid, OWNER) as agent:
        await agent.prepare("t", sinks)
        os.kill(agent.pid, signal.SIGSTOP)
        try:  # It reads both at once.
            run = asyncio.ensure_future(agent.run("t", "x", Command(argv=["cat"], env={})))
            looking = asyncio.ensure_future(agent.listing())
            await asyncio.sleep(0)
        finally:
            os.kill(agent.pid, signal.SIGCONT)
        (becoming,) = (await looking).executions
        assert (becoming.execution_id, becoming.ended, becoming.begun) == ("x", False, False)
        await run
        (known,) = (await agent.listing()).executions
        assert (known.execution_id, known.begun) == ("x", True)


def sinks_in(folder: Path) -> Sinks:
    """Log and result as descriptors, which nobody closes before the test's process ends."""
    log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    result = os.open(folder / "result", os.O_CREAT | os.O_WRONLY)
    os.truncate(result, 4096)
    return Sinks(log=log, result=result)


async def test_one_that_may_still_begin_is_deleted_later(
    node: Node, caller: Caller, double: Double
) -> None:
    record = left_over(node, double.box)
    request = pb.DeleteExecutionRequest(name=double.box.name("one"), force=True)
    for _ in range(2):
        async with refused(Code.UNAVAILABLE, Why.ERROR_REASON_AGENT_UNAVAILABLE):
            await caller.executions.DeleteExecution(request)
    long_ago = time.time() - 3600
    os.utime(record.folder / "spec", (long_ago, long_ago))
    await caller.executions.DeleteExecution(request)
    assert not record.folder.exists()
