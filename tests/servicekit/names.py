"""A name server for tests: it stands in for that of a container engine or a cluster."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, cast

_ADDRESS: Final = 1
_HEADER: Final = struct.Struct(">6H")
_ANSWER: Final = struct.Struct(">HHHIH4s")
_ANSWERED, _QUESTION = 0x8180, 0xC00C


class NameServer(asyncio.DatagramProtocol):
    """Tells one address for whatever name it is asked, until it is told another."""

    def __init__(self, told: str) -> None:
        self.told = told
        self.address = ""
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)
        host, port = transport.get_extra_info("sockname")
        self.address = f"{host}:{port}"

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        number = _HEADER.unpack_from(data)[0]
        end = data.index(0, _HEADER.size) + 5
        question = data[_HEADER.size : end]
        kind = struct.unpack_from(">H", data, end - 4)[0]
        answer = b""
        if kind == _ADDRESS:
            answer = _ANSWER.pack(_QUESTION, _ADDRESS, 1, 0, 4, socket.inet_aton(self.told))
        header = _HEADER.pack(number, _ANSWERED, 1, 1 if answer else 0, 0, 0)
        self._transport.sendto(header + question + answer, addr)


@asynccontextmanager
async def names(told: str) -> AsyncIterator[NameServer]:
    """A name server on a port of its own."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        lambda: NameServer(told), local_addr=("127.0.0.1", 0)
    )
    try:
        yield server
    finally:
        transport.close()
