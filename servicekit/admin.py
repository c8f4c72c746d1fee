"""The address for the operator: metrics over HTTP, never beyond this machine."""

import asyncio
import ipaddress
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from servicekit.config import ConfigError, check_port
from servicekit.sockets import AddressError, make_way, remove

_UNIX: Final = "unix:"
_TIMEOUT: Final = 5.0
_Answer: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def admin(address: str, registry: CollectorRegistry) -> AsyncIterator[None]:
    """Serve the metrics on `address` while the block runs; empty: do not."""
    if not address:
        yield
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(head, registry))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass  # A caller that does not speak HTTP, or left.
        finally:
            writer.close()

    async with _listening(address, answer):
        yield


@asynccontextmanager
async def _listening(address: str, answer: _Answer) -> AsyncIterator[None]:
    if address.startswith(_UNIX):
        path = Path(address.removeprefix(_UNIX))
        make_way(path)
        before = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(answer, path)
        finally:
            os.umask(before)
        try:
            async with server:
                yield
        finally:
            remove(path)
        return
    host, _, port = address.rpartition(":")
    if not _is_loopback(host) or not port.isdecimal():
        raise ConfigError(f"admin address: not a loopback address: {address}")
    check_port(address)
    try:
        server = await asyncio.start_server(answer, host.strip("[]"), int(port))
    except OSError as error:
        raise AddressError(error.errno, f"cannot listen: {error.strerror}", address) from None
    async with server:
        yield


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _response(head: bytes, registry: CollectorRegistry) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0]
    if method != b"GET" or path != b"/metrics":
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    body = generate_latest(registry)
    headers = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE_LATEST}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return headers.encode() + body
