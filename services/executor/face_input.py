"""The RPCs of the executor that are about input and terminals."""

import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

from cove.executor.v1 import executor_pb2 as pb
from servicekit.errors import InvalidArgument
from servicekit.status import Context
from services.executor.attaching import Attached
from services.executor.face import Face, parts
from services.executor.inputs import Piece, Writer
from services.executor.record import Record

_PATIENCE: Final = 20.0
"""Seconds after which WriteInput says how far it came: before its deadline."""


class InputFace(Face):
    """Input and terminals."""

    async def WriteInput(
        self, request: pb.WriteInputRequest, context: Context
    ) -> pb.WriteInputResponse:
        record = await self._executions.find(*parts(request.name))
        piece = Piece(offset=request.offset, data=request.data, close=request.close)
        writer = Writer(name=request.writer, take_over=request.take_over)
        state = await self._inputs.write(record, piece, writer, seconds=_PATIENCE)
        if request.release and request.writer:
            await self._inputs.release(record, writer)
        return pb.WriteInputResponse(offset=state.taken, closed=state.closed)

    async def StreamInput(
        self, requests: AsyncIterator[pb.StreamInputRequest], context: Context
    ) -> pb.StreamInputResponse:
        first = await anext(requests, None)
        if first is None or not first.name or not first.HasField("offset"):
            raise InvalidArgument("name", "the first message has a name and an offset")
        record = await self._executions.find(*parts(first.name))
        writer = Writer(name=first.writer or secrets.token_hex(8), take_over=first.take_over)
        async with self._inputs.held(record, writer) as state:
            by = Writer(name=writer.name)
            at = first.offset
            request: pb.StreamInputRequest | None = first
            while request is not None:
                at = request.offset if request.HasField("offset") else at
                piece = Piece(offset=at, data=request.data, close=request.close)
                state = await self._inputs.write(record, piece, by)
                at = piece.end
                request = await anext(requests, None)
        return pb.StreamInputResponse(offset=state.taken, closed=state.closed)

    async def ResizeTerminal(
        self, request: pb.ResizeTerminalRequest, context: Context
    ) -> pb.ResizeTerminalResponse:
        async def resize() -> pb.ResizeTerminalResponse:
            record = await self._executions.find(*parts(request.name))
            await self._inputs.resize(record, request.terminal.rows, request.terminal.cols)
            return pb.ResizeTerminalResponse()

        return await self._ledger.once(request, pb.ResizeTerminalResponse, resize)

    async def Attach(
        self, requests: AsyncIterator[pb.AttachRequest], context: Context
    ) -> AsyncIterator[pb.AttachResponse]:
        first = await anext(requests, None)
        if first is None or not first.HasField("open"):
            raise InvalidArgument("open", "the first message is `open`")
        record = await self._opened(first.open)
        attached = Attached(self._executions, self._outputs, self._inputs, record)
        events = attached.events(first.open, requests)
        async with aclosing(events):
            async for event in events:
                yield event

    async def _opened(self, opening: pb.AttachRequest.Open) -> Record:
        name = opening.name
        if opening.HasField("start"):
            started = await self._start(opening.start, opening.start.execution.spec)
            name = started.execution.name
        return await self._executions.find(*parts(name))
