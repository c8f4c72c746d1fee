"""A seat before a command: its output, and its input, over any number of drops."""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, Final, Self, TypeAlias

import grpc

from cove import status
from cove.connection import Answers, Connection
from cove.executor.v1 import executor_pb2
from cove.executor.v1.executor_pb2 import Chunk, Exit, Gap
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import ExecutionServiceStub
from cove.output import Position

InputState: TypeAlias = pb.AttachResponse.InputState
AttachEvent: TypeAlias = Chunk | Gap | Exit | InputState
"""An event of the output; or that the input was closed, or lost to another writer."""

_WINDOW: Final = 256 << 10
"""Bytes of input that may be on their way."""
_PIECE: Final = 64 << 10


class Attachment:
    """What `Execution.attach` returns: an async context manager, which leaves at its end.

    Input goes on only while `events` are read. After a drop both go on where they were: no byte of
    output or input is lost or comes twice. Leaving does not end the command.
    """

    def __init__(
        self,
        connection: Connection,
        name: str,
        from_offset: int = 0,
        *,
        read_only: bool = False,
        take_over: bool = False,
    ) -> None:
        self._connection = connection
        self._stub = ExecutionServiceStub(connection.channel)
        self._name = name
        self._position = Position(from_offset)
        self._read_only = read_only
        self._take_over = take_over
        self._writer = uuid.uuid4().hex
        self._patience = connection.patience()
        self._answers: Answers[pb.AttachResponse] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self._unsure = bytearray()
        """Input of which nobody has said that the command has it, from `_given` on."""
        self._given = -1
        self._closing = False
        self._left = False
        self._state = InputState()
        self.execution = executor_pb2.Execution(name=name)
        """As it was when this began."""

    async def open(self) -> None:
        """Take the seat, where it is not; `events` does so after a drop."""
        while self._answers is None:
            self._patience.begin()
            try:
                await self._begin()
            except status.Unavailable as error:
                await self._patience.wait(error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave. The command goes on; what still waits to be written is given up."""
        async with self._changed:
            self._left = True
            self._changed.notify_all()
        await self._drop()

    async def _drop(self) -> None:
        """End the stream, if there is one."""
        answers, self._answers = self._answers, None
        if answers:
            answers.close()
        if self._sending:
            self._sending.cancel()
            await asyncio.wait((self._sending,))
            self._sending = None

    async def events(self) -> AsyncGenerator[AttachEvent, None]:
        """The output as it comes, news of the input, and at last the `Exit`."""
        try:
            while True:
                try:
                    await self.open()
                    assert self._answers
                    async for answer in self._answers:
                        before = self._position.offset
                        for event in await self._heard(answer):
                            yield event
                            if isinstance(event, Exit):
                                return
                        if self._position.offset != before:
                            self._patience.refill()
                    raise status.Unavailable("the stream ended without an exit", broken_off=True)
                except status.Unavailable as error:
                    await self._drop()
                    await self._patience.wait(error)
        except status.CoveError:
            await self.close()
            raise

    async def write(self, data: bytes | str) -> None:
        """Write to the command. Waits while it reads nothing and much is on its way.

        Raises `FailedPrecondition` when the input is closed, another writer has it, or the seat
        was left.
        """
        raw = data.encode() if isinstance(data, str) else data
        for at in range(0, len(raw), _PIECE):
            piece = raw[at : at + _PIECE]
            async with self._changed:
                await self._changed.wait_for(self._may_write)
                self._check()
                self._unsure += piece
                self._changed.notify_all()

    async def close_input(self) -> None:
        """Let the command read the end of its input. A terminal has none: write b"\\x04"."""
        async with self._changed:
            self._check()
            self._closing = True
            self._changed.notify_all()

    async def resize(self, rows: int, cols: int) -> None:
        """Give the terminal another size. Raises `FailedPrecondition` where there is none."""
        request = pb.ResizeTerminalRequest(
            name=self._name,
            terminal=executor_pb2.Terminal(rows=rows, cols=cols),
            request_id=str(uuid.uuid4()),
        )
        await self._connection.unary(self._stub.ResizeTerminal, request)

    def _may_write(self) -> bool:
        return self._over or self._left or len(self._unsure) < _WINDOW

    @property
    def _over(self) -> bool:
        return self._state.closed or self._state.lost

    def _check(self) -> None:
        if self._read_only:
            raise status.FailedPrecondition("this attachment only looks on")
        if self._state.lost:
            raise status.FailedPrecondition(
                "another writer took the input over", reason="ERROR_REASON_INPUT_HELD"
            )
        if self._state.closed or self._closing:
            raise status.FailedPrecondition(
                "the input is closed", reason="ERROR_REASON_INPUT_CLOSED"
            )
        if self._left:
            raise status.FailedPrecondition("the attachment was left")

    async def _begin(self) -> None:
        """Open one stream, and send again what may not have come."""
        call = self._connection.exchange(self._stub.Attach)
        answers = self._connection.answers(call)
        opening = pb.AttachRequest.Open(
            name=self._name,
            from_offset=self._position.offset,
            read_only=self._read_only or self._state.lost,
            writer=self._writer,
            take_over=self._take_over,
        )
        try:
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # Reading tells why.
                await call.write(pb.AttachRequest(open=opening))
            first = await anext(answers)
        except BaseException:
            answers.close()
            raise
        self.execution, self._take_over = first.execution, False
        if self._given < 0:
            self._given = first.execution.input_bytes
        others = first.execution.input_bytes > self._given + len(self._unsure)
        await self._know(InputState(offset=first.execution.input_bytes, lost=others))
        self._answers, self._left = answers, False
        self._sending = asyncio.create_task(self._send(call, self._given))

    async def _send(self, call: Any, at: int) -> None:
        """Send what is typed, and has not come; after a drop from there on again."""

        def more() -> bool:
            return self._over or self._closing or at < self._given + len(self._unsure)

        while True:
            async with self._changed:
                await self._changed.wait_for(more)
                if self._over:
                    return
                at = max(at, self._given)
                begin = at - self._given
                piece = bytes(self._unsure[begin : begin + _PIECE])
            given = pb.AttachRequest.Input(offset=at, data=piece, close=not piece)
            try:
                await call.write(pb.AttachRequest(input=given))
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return  # Who reads is told why.
            if not piece:
                return
            at += len(piece)

    async def _heard(self, answer: pb.AttachResponse) -> list[AttachEvent]:
        match answer.WhichOneof("event"):
            case "chunk":
                return [*self._position.chunk(answer.chunk)]
            case "gap":
                return [*self._position.gap(answer.gap)]
            case "heartbeat":
                self._position.at(answer.heartbeat.offset)
            case "exit":
                await self._know(InputState(closed=True))
                return [answer.exit]
            case "input":
                return [*await self._know(answer.input)]
        return []

    async def _know(self, state: InputState) -> list[InputState]:
        """How far the input came; what of it is news for the reader."""
        async with self._changed:
            had = self._over
            del self._unsure[: max(0, state.offset - self._given)]
            self._given = max(self._given, state.offset)
            self._state = InputState(
                offset=self._given,
                closed=self._state.closed or state.closed,
                lost=self._state.lost or state.lost,
            )
            if self._over:
                self._unsure.clear()
            self._changed.notify_all()
            return [self._state] if self._over and not had else []
