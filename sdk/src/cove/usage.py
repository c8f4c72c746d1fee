"""What a command or a workspace uses, as one unbroken stream."""

from collections.abc import AsyncGenerator

from google.protobuf.duration_pb2 import Duration

from cove import status
from cove.connection import Connection
from cove.executor.v1.executor_pb2 import UsageSample
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import ExecutionServiceStub


async def watch_usage(
    connection: Connection, name: str, interval: Duration | None
) -> AsyncGenerator[UsageSample, None]:
    """Yield samples: of an execution to its end, of a workspace until it goes. A drop goes
    unnoticed, but for the samples that would have come meanwhile."""
    stub = ExecutionServiceStub(connection.channel)
    patience = connection.patience()
    request = pb.WatchUsageRequest(name=name, interval=interval)
    while True:
        patience.begin()
        try:
            async with connection.stream(stub.WatchUsage, request) as answers:
                async for answer in answers:
                    match answer.WhichOneof("event"):
                        case "sample":
                            yield answer.sample
                            patience.refill()
                        case "exit":
                            return
            raise status.Unavailable("the stream ended without its last event", broken_off=True)
        except status.Unavailable as error:
            await patience.wait(error)
