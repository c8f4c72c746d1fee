"""Moves bytes between a caller and a port inside, both ways, each as fast as it is taken."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Any

from cove.executor.v1 import executor_pb2 as pb
from servicekit.errors import InvalidArgument
from services.executor.errors import PortReset
from services.executor.ports import Connection


async def forward(
    connection: Connection, requests: AsyncIterator[pb.ForwardPortRequest], heartbeat: float
) -> AsyncGenerator[pb.ForwardPortResponse, None]:
    """Yield what comes from inside, and write what `requests` bring, until both have ended.

    `heartbeat` in seconds. Raises PortReset, InvalidArgument.
    """
    yield pb.ForwardPortResponse(opened=pb.ForwardPortOpened())
    sending = asyncio.create_task(_send(requests, connection))
    reading: asyncio.Task[bytes] | None = asyncio.create_task(connection.read())
    received = 0
    try:
        while reading or not sending.done():
            if not (reading and reading.done()):
                tasks: tuple[asyncio.Task[Any] | None, ...] = (reading, sending)
                waited = [each for each in tasks if each and not each.done()]
                done, _ = await asyncio.wait(
                    waited, timeout=heartbeat, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    yield pb.ForwardPortResponse(heartbeat=pb.Heartbeat(offset=received))
            if sending.done():
                sending.result()
            if reading and reading.done():
                data = reading.result()
                if data:
                    received += len(data)
                    yield pb.ForwardPortResponse(data=data)
                    reading = asyncio.create_task(connection.read())
                else:
                    reading = None
                    yield pb.ForwardPortResponse(end=pb.ForwardPortEnd())
        connection.whole = True
    finally:
        for task in (sending, reading):
            if task:
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task


async def _send(requests: AsyncIterator[pb.ForwardPortRequest], connection: Connection) -> None:
    async for request in requests:
        match request.WhichOneof("message"):
            case "data":
                try:
                    await connection.write(request.data)
                except PortReset:  # Whoever reads is told, after what came before.
                    return
            case "end":
                connection.end()
                return
            case _:
                raise InvalidArgument("target", "only the first message may have one")
    raise InvalidArgument("end", "the stream stopped without its end")
