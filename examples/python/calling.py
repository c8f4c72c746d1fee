"""What a client of Cove does beside calling: show its token, ask again, go on where it was."""

import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_status import rpc_status

from cove.executor.v1.executor_pb2 import Exit
from cove.gateway.v1.gateway_pb2 import ReadOutputRequest
from cove.gateway.v1.gateway_pb2_grpc import ExecutionServiceStub

T = TypeVar("T")

TOKEN = [("authorization", f"Bearer {os.environ.get('COVE_TOKEN', '')}")]
"""Metadata of every call."""

PATIENCE = 60.0
"""Seconds without an answer after which a client gives up."""


_OPTIONS = [
    ("grpc.keepalive_time_ms", 20_000),  # Else a peer that is gone without a word is not missed.
    ("grpc.max_reconnect_backoff_ms", 1000),  # Else one that is back is tried up to 2 min later.
    ("grpc.use_local_subchannel_pool", 1),  # Else channels that are alike share a connection.
]


def connect(address: str) -> grpc.Channel:
    """A channel with a connection of its own, without TLS. `address` is `host:port`."""
    return grpc.insecure_channel(address, _OPTIONS)


def again(method: Callable[..., T], request: Message) -> T:
    """Make a call until it is answered; the request is the same each time, with its request id."""
    end, wait = time.monotonic() + PATIENCE, 0.05
    while True:
        try:
            return method(request, metadata=TOKEN)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                raise
        time.sleep(random.uniform(wait / 2, wait))
        wait = min(2 * wait, 5)


def follow(
    channel: grpc.Channel, execution: str, write: Callable[[bytes], Any]
) -> tuple[Exit, int]:
    """Write the output of an execution until it ends.

    Returns how it ended, and how often the connection broke. After a break it goes on at the
    byte where it was: none comes twice, none is missing.
    """
    stub, offset, breaks, end = ExecutionServiceStub(channel), 0, 0, time.monotonic() + PATIENCE
    while True:
        request = ReadOutputRequest(name=execution, from_offset=offset, follow=True, batched=True)
        try:
            for answer in stub.ReadOutput(request, metadata=TOKEN):
                end = time.monotonic() + PATIENCE
                event = answer.WhichOneof("event")
                for chunk in [answer.chunk] if event == "chunk" else answer.chunks.chunks:
                    write(chunk.data)
                    offset = chunk.offset + len(chunk.data)
                if event == "gap":  # Kept no longer.
                    offset = answer.gap.to
                if event == "exit":
                    return answer.exit, breaks
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                raise
        breaks += 1
        time.sleep(random.uniform(0.05, 0.1))


def details(error: grpc.RpcError) -> tuple[ErrorInfo, BadRequest]:
    """Of a failure: its reason is what to branch on. Empty where no server of Cove was reached."""
    info, fields = ErrorInfo(), BadRequest()
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        detail.Unpack(info) or detail.Unpack(fields)
    return info, fields
