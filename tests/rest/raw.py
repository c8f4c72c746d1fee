"""HTTP written by hand, for what a well-behaved client does not do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.rest.stand_in import TOKEN


@asynccontextmanager
async def connected(
    address: str,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


def head(method: str, path: str, *headers: str) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {TOKEN}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()
