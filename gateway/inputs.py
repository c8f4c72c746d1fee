"""The RPCs of ExecutionService that are about input and terminals."""

from collections.abc import AsyncIterator, Coroutine
from typing import Any

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.registry.v1.registry_pb2 import Environment
from gateway import names
from gateway.face import Face, named
from gateway.feeding import Feed
from gateway.ready import in_words_of
from servicekit.errors import InvalidArgument
from servicekit.status import Context


class InputFace(Face):
    """Input and terminals."""

    async def WriteInput(
        self, request: pb.WriteInputRequest, context: Context
    ) -> pb.WriteInputResponse:
        environment, name = await self._find(request.name)
        with in_words_of(environment):
            answer = await self._write(
                name=name,
                offset=request.offset,
                data=request.data,
                close=request.close,
                writer=request.writer,
                take_over=request.take_over,
                release=request.release,
            )
        return pb.WriteInputResponse(offset=answer.offset, closed=answer.closed)

    async def StreamInput(
        self, requests: AsyncIterator[pb.StreamInputRequest], context: Context
    ) -> pb.StreamInputResponse:
        """By WriteInput behind: an executor that starts anew between two pieces breaks nothing."""
        first = await anext(requests, None)
        if first is None or not first.name or not first.HasField("offset"):
            raise InvalidArgument("name", "the first message has a name and an offset")
        environment, name = await self._find(first.name)

        def write(**fields: Any) -> Coroutine[Any, Any, executor_pb2.WriteInputResponse]:
            return self._write(name=name, **fields)

        feed = Feed(write, first.offset, first.writer, take_over=first.take_over)
        request: pb.StreamInputRequest | None = first
        with in_words_of(environment):
            async with feed:
                while request is not None:
                    at = request.offset if request.HasField("offset") else None
                    await feed.put(request.data, at=at, close=request.close)
                    request = await feed.next(_next(requests))
        return pb.StreamInputResponse(offset=feed.state.offset, closed=feed.state.closed)

    async def ResizeTerminal(
        self, request: pb.ResizeTerminalRequest, context: Context
    ) -> pb.ResizeTerminalResponse:
        environment, name = await self._find(request.name)
        asked = executor_pb2.ResizeTerminalRequest(
            name=name,
            terminal=request.terminal,
            request_id=names.derived(request.request_id, "ResizeTerminal"),
        )
        with in_words_of(environment, asked, request):
            await self._executor.unary(self._rpc.ResizeTerminal, asked)
        return pb.ResizeTerminalResponse()

    async def Attach(
        self, requests: AsyncIterator[pb.AttachRequest], context: Context
    ) -> AsyncIterator[pb.AttachResponse]:
        first = await anext(requests, None)
        if first is None or not first.HasField("open"):
            raise InvalidArgument("open", "the first message is `open`")
        opening = first.open
        name = opening.name
        if opening.HasField("start"):
            name = (await self.StartExecution(opening.start, context)).execution.name
        environment, name = await self._find(name)
        asked = executor_pb2.AttachRequest.Open(
            name=name,
            from_offset=opening.from_offset,
            read_only=opening.read_only,
            writer=opening.writer,
            take_over=opening.take_over,
        )
        with in_words_of(environment):
            async with self._executor.exchange(
                self._rpc.Attach, _relayed(asked, requests)
            ) as events:
                async for event in events:
                    await self._ended(environment, event)
                    if told := _told(environment, event):
                        yield told

    async def _write(self, **fields: Any) -> executor_pb2.WriteInputResponse:
        asked = executor_pb2.WriteInputRequest(**fields)
        return await self._executor.unary(self._rpc.WriteInput, asked)


async def _next(requests: AsyncIterator[pb.StreamInputRequest]) -> pb.StreamInputRequest | None:
    return await anext(requests, None)


async def _relayed(
    opening: executor_pb2.AttachRequest.Open, requests: AsyncIterator[pb.AttachRequest]
) -> AsyncIterator[executor_pb2.AttachRequest]:
    yield executor_pb2.AttachRequest(open=opening)
    async for request in requests:
        match request.WhichOneof("event"):
            case "input":
                given = executor_pb2.AttachRequest.Input(
                    data=request.input.data, close=request.input.close
                )
                if request.input.HasField("offset"):
                    given.offset = request.input.offset
                yield executor_pb2.AttachRequest(input=given)
            case "resize":
                yield executor_pb2.AttachRequest(resize=request.resize)
            case _:
                raise InvalidArgument("open", "only the first message is `open`")


def _told(environment: Environment, event: executor_pb2.AttachResponse) -> pb.AttachResponse | None:
    """None for what is not known here."""
    match event.WhichOneof("event"):
        case "execution":
            return pb.AttachResponse(execution=named(environment, event.execution))
        case "input":
            given = event.input
            return pb.AttachResponse(
                input=pb.AttachResponse.InputState(
                    offset=given.offset, closed=given.closed, lost=given.lost
                )
            )
        case "chunk" | "gap" | "heartbeat" | "exit" as kind:
            return pb.AttachResponse(**{kind: getattr(event, kind)})
        case _:
            return None
