"""Stand between a client and the gateway, and break its connections on purpose.

They know bytes and frames, not messages: what is cut is a real connection of a real client library.
A connection breaks in two ways, in turn: reset, with what was under way thrown away, or ended.
Where answers are lost there is a third: the call ends, as by a proxy whose own server is gone.
"""

import asyncio
import re
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol, Self

from tests.interop.frames import Frames, Paths, reset

_READ: Final = 1 << 16
_BOUND: Final = 10.0
"""Seconds for a client to see that its connection has ended."""

_POST: Final = re.compile(rb"POST (/\S+) HTTP/1\.1\r\n")
_RESET: Final = struct.pack("ii", 1, 0)


class Filter(Protocol):
    """What one connection goes through."""

    def asked(self, data: bytes) -> None:
        """What the client said; all of it is passed on."""

    def answered(self, data: bytes) -> tuple[bytes, bool]:
        """What of the gateway's words is passed on, and whether it ends there."""
        ...


class Proxy(ABC):
    """Listens on a port of its own while it is `serving`."""

    ways = 2
    """In which it breaks a connection; the first of them is a reset."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._tasks: set[asyncio.Task[None]] = set()
        self.address = ""
        self.connections = 0
        self.cuts = 0

    @abstractmethod
    def filter(self) -> Filter | None:
        """Of the connection that is number `connections`, from 1; None passes everything."""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Self]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = "{}:{}".format(*server.sockets[0].getsockname())
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        through = self.filter()
        host, _, port = self._upstream.rpartition(":")
        back, forth = await asyncio.open_connection(host, int(port))
        asking = asyncio.create_task(_ask(reader, forth, through))
        try:
            with suppress(OSError):
                if await _answer(back, writer, through):
                    self.cuts += 1
                    forth.transport.abort()
                    await _break(writer, asking, reset=self.cuts % self.ways == 1)
        finally:
            asking.cancel()
            forth.transport.abort()
            writer.transport.abort()


class Losing(Proxy):
    """Odd connections are cut when the first answer comes back, which the client never sees.

    Of the answers of a reset connection the client has seen nothing, of the others their head. Of
    these, every other call is ended by a reset of its own before the connection ends.
    """

    ways = 3

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.lost: list[str] = []
        """The RPCs that were carried out, and whose answer was lost."""

    def filter(self) -> Filter | None:
        return self.loser() if self.connections % 2 else None

    def loser(self) -> Filter:
        """Of a connection whose first answer is lost."""
        return _Loser(self)


class _Loser:
    def __init__(self, proxy: Losing) -> None:
        self._proxy = proxy
        self._paths = Paths()
        self._frames = Frames(preface=False)
        self._way = proxy.cuts % proxy.ways

    def asked(self, data: bytes) -> None:
        self._paths.feed(data)

    def answered(self, data: bytes) -> tuple[bytes, bool]:
        passed = b""
        for frame in self._frames.feed(data):
            if frame.answers:
                self._proxy.lost.append(self._paths.of(frame.stream))
                return passed + (reset(frame.stream) if self._way == 2 else b""), True
            if self._way or not frame.is_headers:
                passed += frame.whole
        return passed, False


class LosingWeb(Losing):
    """The same for HTTP/1.1 in front of gRPC-Web, where connections are the browser's affair.

    Of the calls of each RPC it is the odd ones that lose their answer. Preflights pass.
    """

    ways = 2

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.asked: dict[str, int] = {}

    def filter(self) -> Filter | None:
        return _WebLoser(self)


class _WebLoser:
    def __init__(self, proxy: LosingWeb) -> None:
        self._proxy = proxy
        self._losing = ""

    def asked(self, data: bytes) -> None:
        """A browser says nothing more until it is answered: where a read begins, a request does."""
        if post := _POST.match(data):
            path = post[1].decode()
            self._proxy.asked[path] = self._proxy.asked.get(path, 0) + 1
            self._losing = path if self._proxy.asked[path] % 2 else ""

    def answered(self, data: bytes) -> tuple[bytes, bool]:
        if not self._losing:
            return data, False
        self._proxy.lost.append(self._losing)
        head, end, _ = data.partition(b"\r\n\r\n")
        return (head + end if self._proxy.cuts % 2 else b""), True


class Cutting(Proxy):
    """Cuts each connection after so many bytes from the gateway."""

    def __init__(self, upstream: str, after: int = 1 << 20) -> None:
        super().__init__(upstream)
        self._after = after

    def filter(self) -> Filter | None:
        return _Cutter(self._after)


class _Cutter:
    def __init__(self, left: int) -> None:
        self._left = left

    def asked(self, data: bytes) -> None:
        pass

    def answered(self, data: bytes) -> tuple[bytes, bool]:
        passed = data[: self._left]
        self._left -= len(passed)
        return passed, not self._left


async def _ask(
    reader: asyncio.StreamReader, forth: asyncio.StreamWriter, through: Filter | None
) -> None:
    """Until the client has ended; what it says after the gateway has gone is thrown away."""
    with suppress(OSError):
        while data := await reader.read(_READ):
            if through:
                through.asked(data)
            if not forth.is_closing():
                forth.write(data)
                await forth.drain()
    forth.transport.abort()


async def _answer(
    back: asyncio.StreamReader, writer: asyncio.StreamWriter, through: Filter | None
) -> bool:
    """Until the gateway has ended, or what it says is to be cut; returns whether it is."""
    while data := await back.read(_READ):
        passed, cut = through.answered(data) if through else (data, False)
        writer.write(passed)
        await writer.drain()
        if cut:
            return True
    return False


async def _break(writer: asyncio.StreamWriter, asking: asyncio.Task[None], *, reset: bool) -> None:
    if reset:
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        return
    writer.write_eof()
    await asyncio.wait([asking], timeout=_BOUND)
