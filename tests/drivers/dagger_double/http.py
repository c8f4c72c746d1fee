"""Enough of HTTP/1.1 for one client: requests with a length, answers with one, and streams."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def allowed(self, token: str) -> bool:
        wanted = base64.b64encode(f"{token}:".encode()).decode()
        return self.headers.get("authorization") == f"Basic {wanted}"


async def requests(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    answer: Callable[[Request, asyncio.StreamWriter], Awaitable[None]],
) -> None:
    """Serve one connection. A client that leaves has what it asked for cancelled."""
    try:
        while request := await _read(reader):
            working = asyncio.ensure_future(answer(request, writer))
            leaving = asyncio.ensure_future(reader.read(1))
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                working.cancel()
                await asyncio.wait((working,))
                return
            leaving.cancel()
            await asyncio.wait((leaving,))
            working.result()
    except (ConnectionError, asyncio.IncompleteReadError):
        return
    finally:
        writer.close()


async def reply(writer: asyncio.StreamWriter, content: Any, status: int = 200) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    head = f"HTTP/1.1 {status} OK\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()


async def begin_events(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
    await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode().split("\r\n")
    headers = {}
    for line in filter(None, lines):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    method, path, _ = first.split(" ", 2)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, path, headers, body)
