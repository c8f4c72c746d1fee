"""One caller that sits before a command: what it wrote, what is typed, how large the window is.

Output and input do not wait for each other: who does not read can still type, and who types into
a command that does not read still sees its output.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Final

from agent.client import InputState
from cove.executor.v1 import executor_pb2 as pb
from servicekit.errors import InvalidArgument
from services.executor import convert, telling
from services.executor.errors import ExecutionEnded, InputClosed, InputHeld
from services.executor.executions import Executions
from services.executor.inputs import NO_INPUT, Inputs, Piece, Writer
from services.executor.output import Ended, Event, Outputs, Preview
from services.executor.record import Record

_READ_ONLY: Final = "this caller only looks on"


class Attached:
    """One call of Attach."""

    def __init__(
        self, executions: Executions, outputs: Outputs, inputs: Inputs, record: Record
    ) -> None:
        self._executions = executions
        self._outputs = outputs
        self._inputs = inputs
        self._record = record
        self._state = NO_INPUT
        self._lost = False
        self._news = asyncio.Event()
        """Set when there is something to say of the input."""
        self._failure: Exception | None = None

    async def events(
        self, opening: pb.AttachRequest.Open, requests: AsyncIterator[pb.AttachRequest]
    ) -> AsyncGenerator[pb.AttachResponse, None]:
        """What the caller is told, until the command has ended."""
        async with AsyncExitStack() as stack:
            writer = None
            if not opening.read_only:
                writer = Writer(
                    name=opening.writer or secrets.token_hex(8), take_over=opening.take_over
                )
                self._state = await stack.enter_async_context(
                    self._inputs.held(self._record, writer, self._lose)
                )
                writer = Writer(name=writer.name)
            first = convert.execution(await self._executions.snapshot(self._record))
            yield pb.AttachResponse(execution=first)
            hearing = asyncio.create_task(self._hear(requests, first.input_bytes, writer))
            stack.push_async_callback(_end, hearing)
            output = self._outputs.read(self._record, opening.from_offset, follow=True)
            stack.push_async_callback(output.aclose)
            async for event in self._merged(output):
                yield event

    async def _merged(
        self, output: AsyncGenerator[Event, None]
    ) -> AsyncGenerator[pb.AttachResponse, None]:
        news = asyncio.create_task(self._news.wait())
        heard = asyncio.create_task(_next(output))
        try:
            while True:
                await asyncio.wait((news, heard), return_when=asyncio.FIRST_COMPLETED)
                if news.done():
                    self._news.clear()
                    news = asyncio.create_task(self._news.wait())
                    if self._failure:
                        raise self._failure
                    yield pb.AttachResponse(input=self._told())
                if heard.done():
                    event = heard.result()
                    if event and not isinstance(event, Preview):
                        yield telling.message(event, pb.AttachResponse)
                    if event is None or isinstance(event, Ended):
                        return
                    heard = asyncio.create_task(_next(output))
        finally:
            news.cancel()
            await _end(heard)

    def _told(self) -> pb.AttachResponse.InputState:
        return pb.AttachResponse.InputState(
            offset=self._state.taken, closed=self._state.closed, lost=self._lost
        )

    def _lose(self) -> None:
        self._lost = True
        self._news.set()

    async def _hear(
        self, requests: AsyncIterator[pb.AttachRequest], at: int, writer: Writer | None
    ) -> None:
        try:
            async for request in requests:
                if writer is None:
                    raise InvalidArgument(request.WhichOneof("event") or "event", _READ_ONLY)
                if request.HasField("resize"):
                    await self._resize(request.resize)
                elif request.HasField("input"):
                    given = request.input
                    begin = given.offset if given.HasField("offset") else at
                    piece = Piece(offset=begin, data=given.data, close=given.close)
                    await self._write(piece, writer)
                    at = piece.end
                else:
                    raise InvalidArgument("open", "only the first message is `open`")
        except Exception as error:
            self._failure = error
            self._news.set()

    async def _write(self, piece: Piece, writer: Writer) -> None:
        if self._lost or self._state.closed:  # It was told so, and may not have heard it yet.
            return
        try:
            self._state = await self._inputs.write(self._record, piece, writer)
        except InputHeld:
            self._lost = True
        except (InputClosed, ExecutionEnded):
            self._state = InputState(self._state.taken, closed=True)
        self._news.set()

    async def _resize(self, size: pb.Terminal) -> None:
        if not self._lost:
            with suppress(ExecutionEnded):
                await self._inputs.resize(self._record, size.rows, size.cols)


async def _next(output: AsyncGenerator[Event, None]) -> Event | None:
    return await anext(output, None)


async def _end(task: "asyncio.Task[object]") -> None:
    task.cancel()
    await asyncio.wait((task,))
