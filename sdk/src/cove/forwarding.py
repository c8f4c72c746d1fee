"""A port of this machine that leads to one inside a workspace."""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Self

import grpc

from cove import status
from cove.connection import Connection
from cove.ended import First
from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import ExecutionServiceStub

_PIECE: Final = 64 << 10


class Forward:
    """Listens, and connects whoever comes to the port inside. An async context manager.

    A connection that cannot be made, or breaks off inside, is reset here; `on_failure` is told
    why. Nothing holds more than a few pieces of 64 KiB, however slow a side is.
    """

    def __init__(
        self,
        connection: Connection,
        workspace: str,
        target: int,
        *,
        host: str = "127.0.0.1",
        local_port: int = 0,
    ) -> None:
        self._base = connection
        self._connection = connection
        self._stub = ExecutionServiceStub(connection.channel)
        self._target = pb.ForwardPortTarget(name=workspace, port=target)
        self._host = host
        self._local_port = local_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        """Where it listens; 0 while it does not."""
        self.on_failure: Callable[[status.CoveError], object] = lambda _: None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        self._server = await asyncio.start_server(
            self._accept, self._host, self._local_port, limit=_PIECE, start_serving=False
        )
        self._connection = self._base.narrow()
        self._stub = ExecutionServiceStub(self._connection.channel)
        await self._server.start_serving()
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Listen no more, and end every connection. May be done twice."""
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._connection.close()
        self._server, self.port = None, 0

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        whole = False
        try:
            await self._connected(reader, writer)
            whole = True
        except status.CoveError as error:
            self.on_failure(error)
        except OSError:
            return  # Whoever came here has left.
        finally:
            if not whole:
                _reset(writer)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        patience = self._connection.patience()
        while True:
            patience.begin()
            call = self._connection.exchange(self._stub.ForwardPort)
            first, connected = First(call), False
            try:
                await call.write(pb.ForwardPortRequest(target=self._target))
                await _read(call)
                self._connection.reached()
                connected = True
                return await _exchange(call, reader, writer)
            except grpc.aio.AioRpcError as error:
                failure = self._connection.failure(first.meant(error))
                if connected:
                    raise failure from None
                # Nothing was sent yet that could come twice.
                await patience.wait(failure)
            finally:
                self._connection.end(call)


async def _exchange(
    call: "grpc.aio.StreamStreamCall[Any, Any]",
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Until both directions have ended, or one breaks off."""
    sending = asyncio.create_task(_send(call, reader))
    receiving = asyncio.create_task(_receive(call, writer))
    try:
        await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
        if not receiving.done():
            sending.result()
        await receiving
    finally:
        for task in (sending, receiving):
            task.cancel()
        await asyncio.wait((sending, receiving))


async def _send(call: "grpc.aio.StreamStreamCall[Any, Any]", reader: asyncio.StreamReader) -> None:
    try:
        while data := await reader.read(_PIECE):
            await call.write(pb.ForwardPortRequest(data=data))
        await call.write(pb.ForwardPortRequest(end=executor_pb2.ForwardPortEnd()))
        await call.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return  # The call is over: whoever receives is told how.


async def _receive(
    call: "grpc.aio.StreamStreamCall[Any, Any]", writer: asyncio.StreamWriter
) -> None:
    while (answer := await _read(call)) is not None:
        match answer.WhichOneof("event"):
            case "data":
                writer.write(answer.data)
                await writer.drain()
            case "end" if writer.can_write_eof():
                writer.write_eof()


async def _read(call: "grpc.aio.StreamStreamCall[Any, Any]") -> pb.ForwardPortResponse | None:
    """The next answer, None at a good end. Raises AioRpcError."""
    answer = await call.read()
    if answer is not grpc.aio.EOF:
        assert isinstance(answer, pb.ForwardPortResponse)
        return answer
    if await call.code() is not grpc.StatusCode.OK:
        raise grpc.aio.AioRpcError(
            await call.code(),
            await call.initial_metadata(),
            await call.trailing_metadata(),
            details=await call.details(),
        )
    return None


def _reset(writer: asyncio.StreamWriter) -> None:
    found = writer.get_extra_info("socket")
    if found is not None:
        with suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
