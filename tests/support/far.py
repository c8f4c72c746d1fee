"""A network that is far away, or a peer that is slow to shake hands."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def far(path: str, seconds: float) -> AsyncIterator[str]:
    """A way by TCP to a unix socket, as `host:port`, on which nothing comes back for so long."""
    going: set[asyncio.Task[None]] = set()

    async def through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        going.add(task)
        there, here = await asyncio.open_unix_connection(path)
        try:
            await asyncio.sleep(seconds)
            await asyncio.gather(_pump(reader, here), _pump(there, writer))
        finally:
            for each in (writer, here):
                each.transport.abort()

    async with await asyncio.start_server(through, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()
