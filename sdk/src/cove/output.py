"""The output of a command as one unbroken stream."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeAlias

from cove import status
from cove.connection import Connection
from cove.executor.v1.executor_pb2 import Chunk, Exit, Gap, Preview
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import ExecutionServiceStub

Event: TypeAlias = Chunk | Gap | Preview | Exit
"""A part of the output, a part that is missing, what was seen live, or how the command ended."""


async def read_output(
    connection: Connection,
    name: str | Callable[[], Awaitable[str]],
    from_offset: int = 0,
    *,
    follow: bool = True,
    previews: bool = False,
) -> AsyncGenerator[Event, None]:
    """Yield the output of an execution from an offset on, and at last its `Exit`.

    `name` may also be what starts the execution, and returns its name.
    After a drop it goes on at the byte where it was; each piece of progress refills the
    patience. No byte comes twice, and what is missing is a `Gap`. Without `follow` it ends where
    the output ends now, without an `Exit` when the command still runs. Where output is not live,
    `previews` are what was seen of it meanwhile, each once; the output itself comes after them.
    """
    name = name if isinstance(name, str) else await name()
    stub = ExecutionServiceStub(connection.channel)
    patience = connection.patience()
    position, seen = Position(from_offset), 0
    while True:
        request = pb.ReadOutputRequest(
            name=name, from_offset=position.offset, follow=follow, batched=True
        )
        patience.begin()
        try:
            async with connection.stream(stub.ReadOutput, request) as answers:
                async for answer in answers:
                    before = position.offset
                    match answer.WhichOneof("event"):
                        case "chunk":
                            for event in position.chunk(answer.chunk):
                                yield event
                        case "chunks":
                            for chunk in answer.chunks.chunks:
                                for event in position.chunk(chunk):
                                    yield event
                        case "gap":
                            for gap in position.gap(answer.gap):
                                yield gap
                        case "preview" if previews and answer.preview.position > seen:
                            seen = answer.preview.position
                            yield answer.preview
                        case "heartbeat":
                            position.at(answer.heartbeat.offset)
                        case "exit":
                            yield answer.exit
                            return
                        case "end":
                            return
                    if position.offset != before:
                        patience.refill()
            raise status.Unavailable("the stream ended without its last event", broken_off=True)
        except status.Unavailable as error:
            await patience.wait(error)


class Position:
    """How far the output came. A negative offset counts from an end that is yet unknown."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def at(self, offset: int) -> None:
        """The server sent everything up to `offset`."""
        self.offset = max(self.offset, offset) if self.offset >= 0 else offset

    def chunk(self, chunk: Chunk) -> list[Chunk | Gap]:
        """What of the chunk is new, with a gap before it where bytes are missing."""
        begin = chunk.offset if self.offset < 0 else self.offset
        end = chunk.offset + len(chunk.data)
        missing = _missing(begin, chunk.offset)
        self.offset = max(begin, end)
        if begin > chunk.offset:
            chunk = Chunk(
                stream=chunk.stream,
                offset=begin,
                time=chunk.time,
                data=chunk.data[begin - chunk.offset :],
            )
        return [*missing, chunk] if chunk.data else [*missing]

    def gap(self, gap: Gap) -> list[Gap]:
        """What of the gap is new."""
        begin = getattr(gap, "from") if self.offset < 0 else self.offset
        self.offset = max(begin, gap.to)
        return [_gap(begin, gap.to, gap.reason)] if begin < gap.to else []


def _missing(begin: int, end: int) -> list[Gap]:
    return [_gap(begin, end, Gap.REASON_UNSPECIFIED)] if begin < end else []


def _gap(begin: int, end: int, reason: Gap.Reason.ValueType) -> Gap:
    return Gap(**{"from": begin, "to": end, "reason": reason})  # type: ignore[arg-type]
