"""A gateway that is far away, or slow to shake hands, is reached all the same."""

import asyncio

from cove.client import Client
from tests.sdk.double import Gateway

_AWAY = 1.5
"""Seconds until the first byte comes through; an attempt to connect may take longer than the pause
between two."""


async def test_a_connection_that_takes_long_is_made(address: str, gateway: Gateway) -> None:
    async def through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_unix_connection(address.removeprefix("unix:"))
        await asyncio.sleep(_AWAY)
        await asyncio.gather(_pump(reader, here), _pump(there, writer))

    server = await asyncio.start_server(through, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server, Client(f"{host}:{port}", "secret", patience=20) as cove:
        assert (await cove.workspaces.get("demo")).id == "demo"
    assert len(gateway.requests) == 1


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()
