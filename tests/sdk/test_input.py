"""Input from the client's side: no byte is swallowed, and nobody waits for ever."""

import asyncio

import grpc
import pytest

from cove import status
from cove.client import Client
from cove.errors.v1.errors_pb2 import ErrorReason
from cove.executions import Execution
from cove.executor.v1.executor_pb2 import Exit
from tests.sdk.double import Gateway, told

_BOUND = 30.0
_GONE = told(grpc.StatusCode.NOT_FOUND, ErrorReason.ERROR_REASON_EXECUTION_NOT_FOUND)


@pytest.fixture
def cat(cove: Client) -> Execution:
    return cove.workspaces.named("demo").executions.named("cat")


async def test_what_follows_a_write_that_broke_off_is_written(
    cat: Execution, gateway: Gateway
) -> None:
    assert await cat.write("hello") == 5
    gateway.room, gateway.later = 100, [_GONE]
    with pytest.raises(status.NotFound):
        await cat.write(b"A" * 300)
    gateway.room = 1000
    assert await cat.write("quit") == 109
    assert gateway.input == b"hello" + b"A" * 100 + b"quit"


@pytest.mark.parametrize("failing", [True, False])
async def test_whoever_waits_to_write_is_told_when_the_seat_is_left(
    cat: Execution, gateway: Gateway, failing: bool
) -> None:
    gateway.later = [_GONE] if failing else []
    seat = await cat.attach()
    writing = asyncio.create_task(seat.write(b"x" * (1 << 20)))
    if failing:
        with pytest.raises(status.NotFound):
            async for _ in seat.events():
                pass
    else:
        await asyncio.sleep(0)
        await seat.close()
    async with asyncio.timeout(_BOUND):
        with pytest.raises(status.FailedPrecondition, match="left"):
            await writing
    with pytest.raises(status.FailedPrecondition, match="left"):
        await seat.write("more")


async def test_a_client_that_is_closed_at_the_exit_cancels_nobody(
    cove: Client, gateway: Gateway, cat: Execution
) -> None:
    gateway.lingers = _BOUND
    async for event in cat.output():
        if isinstance(event, Exit):
            await cove.close()
