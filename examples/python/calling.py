"""What a client of Cove does beside calling: show its token, ask again, go on where it was."""

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_status import rpc_status

from cove.executor.v1.executor_pb2 import Exit
from cove.gateway.v1.gateway_pb2 import ReadOutputRequest, ReadOutputResponse
from cove.gateway.v1.gateway_pb2_grpc import ExecutionServiceStub

T = TypeVar("T")
D = TypeVar("D", bound=Message)

TOKEN = [("authorization", f"Bearer {os.environ.get('COVE_TOKEN', '')}")]
"""Metadata of every call."""

PATIENCE = 60.0
"""Seconds from a first failure, without an answer since, after which a client gives up."""

_FIRST, _LONGEST = 0.025, 5.0
"""Seconds between two tries."""

_NOTHING_BEGUN = ("ERROR_REASON_RATE_LIMITED", "ERROR_REASON_OVERLOADED")

_OPTIONS = [
    ("grpc.keepalive_time_ms", 20_000),  # Else a peer that is gone without a word is not missed.
    ("grpc.http2.max_pings_without_data", 0),  # Else an older gRPC ends that after two pings.
    ("grpc.max_reconnect_backoff_ms", 1000),  # Else one that is back is tried up to 2 min later.
    ("grpc.use_local_subchannel_pool", 1),  # Else channels that are alike share a connection.
]


def connect(address: str) -> grpc.Channel:
    """A channel with a connection of its own: `host:port`, or `https://host:port` with TLS.

    COVE_CA_FILE names the authorities that are trusted, if not those that gRPC brings.
    """
    target = address.removeprefix("https://")
    if target == address:
        return grpc.insecure_channel(target, _OPTIONS)
    file = os.environ.get("COVE_CA_FILE")
    credentials = grpc.ssl_channel_credentials(Path(file).read_bytes() if file else None)
    return grpc.secure_channel(target, credentials, _OPTIONS)


def again(method: Callable[..., T], request: Message) -> T:
    """Make a call until it is answered; the request is the same each time, with its request id."""
    patience = _Patience()
    while True:
        try:
            return method(request, metadata=TOKEN)
        except grpc.RpcError as error:
            patience.wait(error)


def follow(
    channel: grpc.Channel, execution: str, write: Callable[[bytes], Any]
) -> tuple[Exit, int]:
    """Write the output of an execution until it ends.

    Returns how it ended, and how often the connection broke. After a break it goes on at the
    byte where it was: none comes twice, none is missing. What `write` raises ends it.
    """
    stub, offset, breaks, patience = ExecutionServiceStub(channel), 0, 0, _Patience()
    while True:
        request = ReadOutputRequest(name=execution, from_offset=offset, follow=True, batched=True)
        for answer in _until_broken(stub, request, patience):
            patience.refill()  # Any event is an answer; a heartbeat comes every 10 s.
            event = answer.WhichOneof("event")
            for chunk in [answer.chunk] if event == "chunk" else answer.chunks.chunks:
                write(chunk.data)
                offset = chunk.offset + len(chunk.data)
            if event == "gap":  # Kept no longer.
                offset = answer.gap.to
            if event == "exit":
                return answer.exit, breaks
        breaks += 1


def reason(error: grpc.RpcError) -> ErrorInfo:
    """Its `reason` is what to branch on. Empty where no server of Cove answered."""
    infos = (info for info in _details(error, ErrorInfo) if info.domain == "cove")
    return next(infos, ErrorInfo())


def field(error: grpc.RpcError) -> str:
    """The first field that is wrong; empty where none is."""
    fields = (each.field for bad in _details(error, BadRequest) for each in bad.field_violations)
    return next(fields, "")


class _Patience:
    """How long one call is repeated, and how long is waited in between."""

    def __init__(self) -> None:
        self.refill()

    def refill(self) -> None:
        """There was an answer: what failed before is forgotten."""
        self._end, self._wait = 0.0, _FIRST

    def wait(self, error: Exception) -> None:
        """Wait until the next try, or raise `error` when there shall be none."""
        now = time.monotonic()
        self._end = self._end or now + PATIENCE
        delay = random.uniform(self._wait / 2, self._wait)
        if isinstance(error, grpc.RpcError):
            if not _passes(error):
                raise error
            for said in _details(error, RetryInfo):
                delay = max(delay, said.retry_delay.ToTimedelta().total_seconds())
        if now + delay > self._end:
            raise error
        self._wait = min(2 * self._wait, _LONGEST)
        time.sleep(delay)


def _passes(error: grpc.RpcError) -> bool:
    """Whether it may go otherwise the next time: nobody of Cove answered, or it began nothing."""
    if said := reason(error).reason:
        return error.code() is grpc.StatusCode.UNAVAILABLE or said in _NOTHING_BEGUN
    # Behind a proxy, a gateway that is gone has many codes. This one is a deadline of the caller's.
    return error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED


def _until_broken(
    stub: ExecutionServiceStub, request: ReadOutputRequest, patience: _Patience
) -> Iterator[ReadOutputResponse]:
    """The events of one stream. What fails outside, as they are used, does not come in here."""
    call = stub.ReadOutput(request, metadata=TOKEN)
    try:
        yield from call
        broke: Exception = EOFError("the output ended without its last event")
    except grpc.RpcError as error:
        broke = error
    finally:
        call.cancel()
    patience.wait(broke)


def _details(error: grpc.RpcError, kind: type[D]) -> Iterator[D]:
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        found = kind()
        if detail.Unpack(found):
            yield found
