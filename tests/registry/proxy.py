"""Stands between a store and PostgreSQL, and cuts the connection at a chosen word."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Literal

_SOCKET: Final = ".s.PGSQL.5432"


class Proxy:
    """`cut` is for one statement, which is told to the database or not, and never answered."""

    def __init__(self, server: Path) -> None:
        self._server = server / _SOCKET
        self._armed: tuple[bytes, Literal["before", "after"]] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self, when: Literal["before", "after"], statement: str) -> None:
        """The next time that the statement comes, end its connection."""
        self._armed = (statement.encode() + b"\0", when)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        back, forth = await asyncio.open_unix_connection(str(self._server))
        answers = asyncio.create_task(_copy(back, writer))
        try:
            while data := await reader.read(1 << 16):
                if self._armed and self._armed[0] in data:
                    _, when = self._armed
                    self._armed = None
                    answers.cancel()
                    await asyncio.wait((answers,))  # Only one may read.
                    if when == "after":
                        forth.write(data)
                        await back.read(1)  # It was done, and nobody hears of it.
                    return
                forth.write(data)
                await forth.drain()
        finally:
            answers.cancel()
            for each in (forth, writer):
                each.transport.abort()
            self._tasks.discard(task)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def proxy(server: Path, folder: Path) -> AsyncIterator[Proxy]:
    """Of the server whose socket is in a folder, on one in another."""
    made = Proxy(server)
    listening = await asyncio.start_unix_server(made.handle, str(folder / _SOCKET))
    try:
        yield made
    finally:
        listening.close()
        await made.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()
