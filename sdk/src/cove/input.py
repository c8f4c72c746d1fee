"""Input of a command, written call by call."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from cove.connection import Connection
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import ExecutionServiceStub

_PIECE: Final = 256 << 10
"""Bytes of one call."""


class Input:
    """Knows how far it wrote; `begin` is asked where to begin."""

    def __init__(self, connection: Connection, begin: Callable[[], Awaitable[int]]) -> None:
        self._connection = connection
        self._stub = ExecutionServiceStub(connection.channel)
        self._begin = begin
        self._written: int | None = None
        self._one = asyncio.Lock()

    async def write(
        self,
        name: str,
        data: bytes,
        *,
        offset: int | None,
        close: bool,
        writer: str,
        take_over: bool,
    ) -> int:
        """See `Execution.write`."""
        async with self._one:
            at = self._written if offset is None else offset
            at = await self._begin() if at is None else at
            end = at + len(data)
            self._written = None  # Until all of this came: whoever ends it midway, asks again.
            while True:
                piece = data[len(data) - (end - at) :][:_PIECE]
                request = pb.WriteInputRequest(
                    name=name,
                    offset=at,
                    data=piece,
                    close=close and at + len(piece) == end,
                    writer=writer,
                    take_over=take_over,
                )
                answer = await self._connection.unary(self._stub.WriteInput, request)
                at, take_over = max(at, min(answer.offset, end)), False
                if at == end and (answer.closed or not close):
                    self._written = end
                    return answer.offset
