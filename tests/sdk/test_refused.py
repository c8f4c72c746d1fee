"""Why a stream was refused is told at once, though it was written to.

gRPC makes an INTERNAL of it, see https://github.com/grpc/grpc/issues/36066.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from cove import status
from cove.client import Client
from cove.executor.v1.executor_pb2 import Execution
from cove.gateway.v1 import gateway_pb2 as pb

_ROUNDS = 60


class Refusing:
    """A gateway in threads of its own, which refuses what streams come to it."""

    def __init__(self) -> None:
        self.calls = 0

    def refuse(self, _requests: Any, context: grpc.ServicerContext) -> Any:
        self.calls += 1
        told = status_pb2.Status(code=grpc.StatusCode.NOT_FOUND.value[0], message="not here")
        info = error_details_pb2.ErrorInfo(reason="ERROR_REASON_FILE_NOT_FOUND", domain="cove")
        told.details.add().Pack(info)
        context.abort_with_status(rpc_status.to_status(told))

    def attach(self, requests: Any, context: grpc.ServicerContext) -> Any:
        """Not before a piece of input came."""
        opening = pb.AttachRequest.FromString(next(requests)).open
        yield pb.AttachResponse(execution=Execution(name=opening.name)).SerializeToString()
        next(requests)
        self.refuse(requests, context)

    def methods(self) -> dict[str, dict[str, Any]]:
        return {
            "cove.gateway.v1.FileService": {
                "WriteFile": grpc.stream_unary_rpc_method_handler(self.refuse),
            },
            "cove.gateway.v1.ExecutionService": {
                "Attach": grpc.stream_stream_rpc_method_handler(self.attach),
                "ForwardPort": grpc.stream_stream_rpc_method_handler(self.refuse),
            },
        }


@pytest.fixture
def gateway() -> Refusing:
    return Refusing()


@pytest.fixture
async def cove(gateway: Refusing) -> AsyncIterator[Client]:
    server = grpc.server(ThreadPoolExecutor(1))
    for service, methods in gateway.methods().items():
        server.add_registered_method_handlers(service, methods)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        async with Client(f"127.0.0.1:{port}") as client:
            yield client
    finally:
        server.stop(0).wait()


async def test_of_an_upload(cove: Client, gateway: Refusing) -> None:
    files = cove.workspaces.named("demo").files
    for _ in range(_ROUNDS):
        with pytest.raises(status.NotFound, match="not here"):
            await files.write("a", b"x" * (8 << 20))
    assert gateway.calls == _ROUNDS


async def test_of_what_is_typed(cove: Client, gateway: Refusing) -> None:
    for _ in range(_ROUNDS):
        async with await cove.workspaces.named("demo").executions.named("cat").attach() as seat:
            typing = asyncio.create_task(seat.write(b"x" * (1 << 20)))
            with pytest.raises(status.NotFound, match="not here"):
                async for _event in seat.events():
                    pass
            with pytest.raises(status.FailedPrecondition, match="left"):
                await typing
    assert gateway.calls == _ROUNDS


async def test_of_a_connection_to_a_port(cove: Client, gateway: Refusing) -> None:
    told: asyncio.Queue[status.CoveError] = asyncio.Queue()
    async with cove.workspaces.named("demo").forward(80) as forward:
        forward.on_failure = told.put_nowait
        for _ in range(_ROUNDS):
            _, writer = await asyncio.open_connection("127.0.0.1", forward.port)
            assert isinstance(await told.get(), status.NotFound)
            writer.close()
    assert gateway.calls == _ROUNDS
