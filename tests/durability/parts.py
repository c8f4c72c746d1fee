"""Output of which every byte is known, a network that breaks, and what services hold."""

import asyncio
import itertools
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from cove.executions import Execution
from cove.executor.v1.executor_pb2 import Chunk, Exit

TEXT: Final = """
import os, sys, time
n = 0
while not os.path.exists(sys.argv[1]):
    os.write(1, b"".join(b"line %d\\n" % each for each in range(n, n + 20)))
    n += 20
    time.sleep(0.002)
sys.exit(7)
"""
"""Writes numbered lines until there is a file of the name it is given."""

BINARY: Final = """
import os, sys, time
n = 0
while not os.path.exists(sys.argv[1]):
    size = 1 + n % 97
    os.write(1, b"".join(each.to_bytes(4, "big") for each in range(n, n + size)))
    n += size
    time.sleep(0.002)
os.kill(os.getpid(), 9)
"""
"""Writes numbers of four bytes; in the end it is killed."""


def lines() -> Iterator[bytes]:
    return (b"line %d\n" % number for number in itertools.count())


def numbers() -> Iterator[bytes]:
    return (number.to_bytes(4, "big") for number in itertools.count())


class Expected:
    """What comes must be the output from its beginning on."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._ahead = b""
        self.taken = 0
        """Bytes that came so far."""

    def take(self, data: bytes) -> None:
        ahead = [self._ahead]
        size = len(self._ahead)
        while size < len(data):
            ahead.append(next(self._parts))
            size += len(ahead[-1])
        whole = b"".join(ahead)
        assert data == whole[: len(data)], f"other bytes after {self.taken}"
        self._ahead = whole[len(data) :]
        self.taken += len(data)

    async def follow(self, execution: Execution) -> Exit:
        """Take all of its output; a gap in it fails."""
        end: Exit | None = None
        async for event in execution.output():
            if isinstance(event, Chunk):
                assert event.offset == self.taken
                self.take(event.data)
            else:
                assert isinstance(event, Exit), event
                end = event
        assert end is not None
        assert end.output_bytes == self.taken
        return end


class Breaking:
    """A network on which no connection lasts."""

    def __init__(self, host: str, port: int, bytes_of_one: Callable[[], int]) -> None:
        self.target = host, port
        self._bytes_of_one = bytes_of_one
        self.broken = 0
        """Connections that were reset."""
        self._listens = True
        self._relaying: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._listens:  # It came while the door was being shut.
            _reset(writer)
            return
        relaying = asyncio.ensure_future(self._relay(reader, writer))
        self._relaying.add(relaying)
        relaying.add_done_callback(self._relaying.discard)
        # Also of one that was ended before it began.
        relaying.add_done_callback(lambda _: _reset(writer))

    async def end(self) -> None:
        """Reset all connections that there are."""
        ending = list(self._relaying)
        for each in ending:
            each.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Gives its own address."""
        server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        async with server:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            self._listens = False
            server.close()
            await self.end()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, requests = await asyncio.open_connection(*self.target)
        except OSError:
            return
        sending = asyncio.ensure_future(_copy(reader, requests, 1 << 60))
        try:
            if await _copy(answers, writer, self._bytes_of_one()):
                self.broken += 1
        finally:
            sending.cancel()
            _reset(requests)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int) -> bool:
    """Whether it ended as so much was copied."""
    with suppress(OSError):
        while most > 0:
            data = await reader.read(min(most, 1 << 16))
            if not data:
                return False
            writer.write(data)
            await writer.drain()
            most -= len(data)
        return True
    return False


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def breaking(address: str, seed: int = 1) -> AsyncIterator[tuple[Breaking, str]]:
    """In front of `address`: resets each connection after some bytes. Gives its own address too."""
    dice = random.Random(seed)
    host, _, port = address.rpartition(":")
    network = Breaking(host, int(port), lambda: dice.choice((100, 5_000, 90_000, 300_000)))
    async with network.listening() as ours:
        yield network, ours


def held(pid: int) -> int:
    """Bytes of memory of a process, of what is shared its part."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1]) << 10
