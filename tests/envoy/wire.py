"""The way from Envoy to a gateway, on which an answer can be lost after the gateway has done it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_PIECE = 64 << 10


class Wire:
    """`hold` keeps back what the gateway answers from then on; `cut` loses it. The first connection
    is that of the health checks, which go on."""

    def __init__(self, host: str, port: int) -> None:
        self._where = host, port
        self._open = asyncio.Event()
        self._open.set()
        self._links: set[asyncio.Task[None]] = set()
        self._made = 0
        self.lost = 0
        """How many connections were cut."""

    def hold(self) -> None:
        self._open.clear()

    async def cut(self) -> None:
        links = [*self._links]
        self.lost += len(links)
        for each in links:
            each.cancel()
        await asyncio.gather(*links, return_exceptions=True)
        self._open.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._made += 1
        checks = self._made == 1
        there, back = await asyncio.open_connection(*self._where)
        pipes = [
            asyncio.create_task(_pipe(reader, back, None)),
            asyncio.create_task(_pipe(there, writer, None if checks else self._open)),
        ]
        link = asyncio.create_task(_first(pipes))
        if not checks:
            self._links.add(link)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await link
        finally:
            self._links.discard(link)
            for each in pipes:
                each.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)
            for each_writer in (writer, back):
                each_writer.transport.abort()


@asynccontextmanager
async def wired(address: str) -> AsyncIterator[tuple[Wire, str]]:
    """Yields the wire, and where it begins."""
    host, _, port = address.rpartition(":")
    wire = Wire(host, int(port))
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    try:
        yield wire, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await wire.cut()


async def _first(pipes: list["asyncio.Task[None]"]) -> None:
    await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)


async def _pipe(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event | None
) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(_PIECE):
            if gate:
                await gate.wait()
            writer.write(piece)
            await writer.drain()
