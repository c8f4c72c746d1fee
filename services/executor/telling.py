"""Output as messages of a stream."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar, cast

from agent.record import Stream
from cove.executor.v1 import executor_pb2 as pb
from services.executor.convert import exit_of, time_of
from services.executor.output import (
    Chunk,
    Ended,
    Event,
    Gap,
    Heartbeat,
    Missing,
    Preview,
    Stopped,
)

R = TypeVar("R", pb.ReadOutputResponse, pb.StreamExecutionResponse, pb.AttachResponse)

_BATCH: Final = 128 << 10
"""Bytes of output in one message, about."""

_STREAMS: Final = {
    Stream.STDOUT: pb.Chunk.STREAM_STDOUT,
    Stream.STDERR: pb.Chunk.STREAM_STDERR,
    Stream.TERMINAL: pb.Chunk.STREAM_TERMINAL,
}
_MISSING: Final = {
    Missing.DISK_FULL: pb.Gap.REASON_DISK_FULL,
    Missing.DAMAGED: pb.Gap.REASON_DAMAGED,
    Missing.RETENTION: pb.Gap.REASON_RETENTION,
}


def batched(events: Sequence[Event]) -> Iterator[Event | list[Chunk]]:
    """The same events, chunks that follow each other together."""
    batch: list[Chunk] = []
    size = 0
    for event in events:
        if batch and (not isinstance(event, Chunk) or size + len(event.data) > _BATCH):
            yield batch
            batch, size = [], 0
        if isinstance(event, Chunk):
            batch.append(event)
            size += len(event.data)
        else:
            yield event
    if batch:
        yield batch


def message(event: Event | list[Chunk], response: type[R]) -> R:
    """`Stopped` is known to ReadOutput only, `Preview` and chunks together not to Attach."""
    if isinstance(event, list):
        told: Any = response()
        for each in event:  # Filled in where they stay: much would be copied.
            told.chunks.chunks.add(**_fields(each))
        return cast("R", told)
    kind, value = _told(event)
    return response(**{kind: value})


def _told(event: Event) -> tuple[str, Any]:
    match event:
        case Chunk():
            return "chunk", pb.Chunk(**_fields(event))
        case Preview():
            return "preview", pb.Preview(**_fields(event), position=event.position)
        case Gap():
            return "gap", _gap(event)
        case Heartbeat(offset):
            return "heartbeat", pb.Heartbeat(offset=offset)
        case Stopped(offset):
            return "end", pb.Heartbeat(offset=offset)
        case Ended(end):
            return "exit", exit_of(end)


def _fields(found: Chunk | Preview) -> dict[str, Any]:
    return {
        "stream": _STREAMS.get(found.stream, pb.Chunk.STREAM_STDOUT),
        "offset": found.offset,
        "time": time_of(found.time_ns),
        "data": found.data,
    }


def _gap(found: Gap) -> pb.Gap:
    message = pb.Gap(to=found.end, reason=_MISSING[found.why])
    setattr(message, "from", found.begin)  # A keyword of this language.
    return message
