"""A connection to a port, passed through to the executor."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cove.executor.v1 import executor_pb2
from cove.executor.v1.executor_pb2_grpc import ExecutorServiceStub
from cove.gateway.v1 import gateway_pb2 as pb
from gateway.tools import Tool
from servicekit.errors import InvalidArgument


@asynccontextmanager
async def forwarded(
    executor: Tool[ExecutorServiceStub],
    target: executor_pb2.ForwardPortTarget,
    rest: AsyncIterator[pb.ForwardPortRequest],
) -> AsyncIterator[AsyncIterator[executor_pb2.ForwardPortResponse]]:
    """The executor's answers to `target` and the `rest` of what the caller sends.

    Nothing of the rest is taken before the connection is there. So an attempt that fails costs
    nothing, and what the channel repeats by itself is only the target.
    """
    decided = asyncio.Event()
    over = False

    async def requests() -> AsyncIterator[executor_pb2.ForwardPortRequest]:
        yield executor_pb2.ForwardPortRequest(target=target)
        await decided.wait()
        if over:
            return
        async for request in rest:
            match request.WhichOneof("message"):
                case "data":
                    yield executor_pb2.ForwardPortRequest(data=request.data)
                case "end":
                    yield executor_pb2.ForwardPortRequest(end=request.end)
                case _:
                    raise InvalidArgument("target", "only the first message may have one")

    async def events(
        answers: AsyncIterator[executor_pb2.ForwardPortResponse],
    ) -> AsyncIterator[executor_pb2.ForwardPortResponse]:
        async for answer in answers:
            decided.set()
            yield answer

    try:
        async with executor.exchange(executor.rpc.ForwardPort, requests()) as answers:
            yield events(answers)
    finally:
        over = True
        decided.set()
