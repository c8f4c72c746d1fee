"""Output on its way from the executor to its reader.

Much of it comes in batches, as each message costs as much as its bytes do; who did not ask for
batches gets what is in them.
"""

from collections.abc import Iterator
from typing import TypeVar

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb

R = TypeVar("R", pb.ReadOutputResponse, pb.StreamExecutionResponse)


def relayed(
    event: executor_pb2.ReadOutputResponse | executor_pb2.StreamExecutionResponse,
    response: type[R],
    *,
    batched: bool,
) -> Iterator[R]:
    """The messages for one of the executor's; none for what is not known here."""
    kind = event.WhichOneof("event")
    if kind == "chunks" and not batched:
        for chunk in event.chunks.chunks:
            yield response(chunk=chunk)
    elif kind:
        yield response(**{kind: getattr(event, kind)})
