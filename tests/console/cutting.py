"""A network that breaks: a proxy in front of the gateway."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_PART = 64 << 10


class Cutting:
    """Passes bytes on until a connection has brought `limit`, which is then cut; None: for ever."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._open: set[asyncio.StreamWriter] = set()
        self.limit: int | None = None
        self.cuts = 0
        self.address = ""

    def cut(self) -> None:
        """Every connection that is open, without a word."""
        for writer in list(self._open):
            writer.transport.abort()
            self.cuts += 1

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, back))
                both.create_task(self._pass(there, writer, limited=True))
        except* OSError:
            pass
        finally:
            self._open.discard(writer)
            for each in (writer, back):
                each.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, limited: bool = False
    ) -> None:
        passed = 0
        while data := await reader.read(_PART):
            writer.write(data)
            await writer.drain()
            passed += len(data)
            if limited and self.limit is not None and passed >= self.limit:
                self.cuts += 1
                writer.close()  # What was passed arrives; a reset would take back some of it.
                await writer.wait_closed()
                raise ConnectionAbortedError
        with suppress(OSError):
            writer.write_eof()


@asynccontextmanager
async def cutting(target: str) -> AsyncIterator[Cutting]:
    """In front of `target`, `host:port`."""
    made = Cutting(target)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    made.address = f"{host}:{port}"
    try:
        yield made
    finally:
        server.close()
        made.cut()
