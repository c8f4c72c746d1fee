"""Whatever an agent left: callers are told something, and never an error of ours."""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cove.executor.v1 import executor_pb2 as pb
from services.executor.ending import End, Usage
from tests.agent.test_fuzz import EXAMPLES, FEW, HEALTHY, logs
from tests.executor.node import Caller, Node, Sandbox


@dataclass
class Left:
    """An execution that has ended."""

    runner: asyncio.Runner
    caller: Caller
    box: Sandbox
    folder: Path


@pytest.fixture
def left(node: Node) -> Iterator[Left]:
    with asyncio.Runner() as runner:
        sandbox, serving = node.sandbox(), node.executor()
        box = runner.run(sandbox.__aenter__())
        caller = runner.run(serving.__aenter__())
        try:
            runner.run(caller.start(box, "one", "true"))
            runner.run(caller.wait(box, "one"))
            folder = node.state / "executor" / "executions" / box.uid / "one"
            yield Left(runner, caller, box, folder)
        finally:
            runner.run(serving.__aexit__(None, None, None))
            runner.run(sandbox.__aexit__(None, None, None))


async def told(left: Left, offset: int) -> list[pb.ReadOutputResponse]:
    """What a reader is told; nothing when the offset is refused."""
    try:
        found = [event async for event in left.caller.read(left.box, "one", offset, follow=False)]
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.OUT_OF_RANGE:
            raise
        return []
    assert (await left.caller.get(left.box, "one")).exit.HasField("end_time")
    return found


def fuzz(left: Left, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=HEALTHY, database=None)
    @given(logs() | st.binary(max_size=400), st.integers(-300, 300), st.integers(0, 2**63 - 1))
    def play(data: bytes, offset: int, output: int) -> None:
        (left.folder / "log").write_bytes(data)
        usage = Usage()
        end = End.lost("it is played", start_ns=2**63, end_ns=1, output=output, usage=usage)
        descriptor = os.open(left.folder / "end", os.O_WRONLY)
        os.pwrite(descriptor, end.encode(), 0)
        os.close(descriptor)
        events = left.runner.run(told(left, offset))
        if not events:
            return
        assert events[-1].WhichOneof("event") == "exit"
        at = None
        for event in events[:-1]:
            begin, until = event.chunk.offset, event.chunk.offset + len(event.chunk.data)
            if event.HasField("gap"):
                begin, until = getattr(event.gap, "from"), event.gap.to
            assert begin < until
            assert at is None or begin == at
            at = until

    play()


def test_no_log_is_an_error_of_ours(left: Left) -> None:
    fuzz(left, FEW)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_no_log_is_ever_an_error_of_ours(left: Left) -> None:
    fuzz(left, EXAMPLES)
