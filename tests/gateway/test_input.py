"""Input and terminals of a workspace's commands, through the gateway."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest_asyncio

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from tests.gateway.conftest import SESSION
from tests.gateway.stage import Gateway, Stage, eventually
from tests.servicekit.failing import failure

DEMO = "workspaces/demo"
NAME = f"{DEMO}/executions/one"
SIZE = executor_pb2.Terminal(rows=24, cols=80)


@pytest_asyncio.fixture(loop_scope=SESSION)
async def demo(stage: Stage, gateway: Gateway) -> AsyncIterator[Gateway]:
    """A gateway that has a workspace."""
    await gateway.workspaces.CreateWorkspace(stage.create())
    yield gateway


def starting(script: str, **spec: Any) -> pb.StartExecutionRequest:
    wanted = executor_pb2.ExecutionSpec(script=script, **spec)
    return pb.StartExecutionRequest(
        parent=DEMO,
        execution_id="one",
        execution=executor_pb2.Execution(spec=wanted),
        request_id=str(uuid.uuid4()),
    )


async def begin(gateway: Gateway, script: str) -> None:
    stdin = executor_pb2.ExecutionSpec.STDIN_OPEN
    await gateway.executions.StartExecution(starting(script, stdin=stdin))


async def output(gateway: Gateway) -> bytes:
    request = pb.ReadOutputRequest(name=NAME, follow=True)
    events = [event.chunk.data async for event in gateway.executions.ReadOutput(request)]
    return b"".join(events)


async def test_input_reaches_the_command(demo: Gateway) -> None:
    await begin(demo, "cat")
    first = pb.WriteInputRequest(name=NAME, offset=0, data=b"one ")
    for _ in range(2):
        assert (await demo.executions.WriteInput(first)).offset == 4

    async def rest() -> AsyncIterator[pb.StreamInputRequest]:
        yield pb.StreamInputRequest(name=NAME, offset=0, data=b"one two")
        yield pb.StreamInputRequest(data=b" three")
        yield pb.StreamInputRequest(data=b" three four", offset=7, close=True)

    answer = await demo.executions.StreamInput(rest())
    assert (answer.offset, answer.closed) == (18, True)
    assert await output(demo) == b"one two three four"


async def test_why_input_is_refused_is_told_in_words_of_the_workspace(demo: Gateway) -> None:
    await begin(demo, "cat")
    gap = await failure(
        demo.executions.WriteInput(pb.WriteInputRequest(name=NAME, offset=9, data=b"x"))
    )
    assert (gap.code, gap.reason) == (grpc.StatusCode.OUT_OF_RANGE, "INPUT_GAP")
    assert dict(gap.info.metadata) == {"name": NAME, "expected": "0"}
    held = pb.WriteInputRequest(name=NAME, offset=0, data=b"a", writer="somebody")
    await demo.executions.WriteInput(held)

    async def pieces() -> AsyncIterator[pb.StreamInputRequest]:
        yield pb.StreamInputRequest(name=NAME, offset=1)
        for _ in range(50):
            yield pb.StreamInputRequest(data=bytes(100_000))

    refused = await failure(demo.executions.StreamInput(pieces()))
    assert refused.reason == "INPUT_HELD"
    await demo.executions.WriteInput(
        pb.WriteInputRequest(name=NAME, offset=1, writer="somebody", close=True, release=True)
    )
    await output(demo)


async def test_a_writer_that_leaves_holds_nothing(demo: Gateway) -> None:
    await begin(demo, "cat")

    async def pieces() -> AsyncIterator[pb.StreamInputRequest]:
        yield pb.StreamInputRequest(name=NAME, offset=0, data=b"a")
        await asyncio.Event().wait()

    streaming = demo.executions.StreamInput(pieces())
    get = pb.GetExecutionRequest(name=NAME)

    async def written() -> bool:
        return (await demo.executions.GetExecution(get)).execution.input_bytes == 1

    await eventually(written)
    streaming.cancel()

    async def free() -> bool:
        try:
            await demo.executions.WriteInput(
                pb.WriteInputRequest(name=NAME, offset=1, data=b"b", close=True)
            )
        except grpc.aio.AioRpcError:
            return False
        return True

    await eventually(free)
    assert await output(demo) == b"ab"


async def test_a_dormant_workspace_wakes_for_a_terminal(stage: Stage, demo: Gateway) -> None:
    call = demo.executions.Attach()
    events = aiter(call)
    opening = pb.AttachRequest.Open(start=starting("stty size; read x; echo got $x", terminal=SIZE))
    await call.write(pb.AttachRequest(open=opening))
    first = await anext(events)
    assert first.execution.name == NAME
    await call.write(pb.AttachRequest(resize=executor_pb2.Terminal(rows=1, cols=2)))
    await call.write(pb.AttachRequest(input=pb.AttachRequest.Input(data=b"it\r", offset=0)))
    rest = [event async for event in events]
    seen = b"".join(event.chunk.data for event in rest)
    assert b"24 80\r\n" in seen or b"1 2\r\n" in seen
    assert seen.endswith(b"got it\r\n")
    assert rest[-1].exit.code == 0
    assert 3 in [event.input.offset for event in rest]
    ended = await failure(
        demo.executions.ResizeTerminal(pb.ResizeTerminalRequest(name=NAME, terminal=SIZE))
    )
    assert ended.reason == "EXECUTION_ENDED"


async def test_a_person_that_leaves_leaves_no_call_behind(stage: Stage, demo: Gateway) -> None:
    await begin(demo, "echo begun; cat")
    for _ in range(10):
        call = demo.executions.Attach()
        await call.write(pb.AttachRequest(open=pb.AttachRequest.Open(name=NAME, take_over=True)))
        first = await anext(aiter(call))
        assert first.HasField("execution")
        call.cancel()

    async def idle() -> bool:
        return stage.executor.open == 0

    await eventually(idle)
