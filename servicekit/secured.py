"""The way to a service over TLS, where the one at the other end must have a certain SPIFFE id.

gRPC in Python compares no names in a certificate but those of hosts, never reads a client's
certificate again, and takes no check of ours. So TLS is spoken here, and gRPC speaks through a
unix socket to it: see docs/decisions/0040-tls.md.
"""

import asyncio
import errno
import logging
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servicekit.config import ConfigError
from servicekit.sockets import AddressError, deserted
from servicekit.tls import Certificates, Pem, client_context, uris

_log = logging.getLogger(__name__)

_PREFIX: Final = "tls-"
_PIECE: Final = 256 << 10
_PATIENCE: Final = 10.0
"""Seconds that a connection may take with its handshake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secure:
    """How a service over TCP is known, and what it is shown."""

    certificates: Certificates
    identity: str
    """The one URI that its certificate must have. Empty: it must be for the name of its host."""

    folder: Path
    """Of this user alone: for the socket."""


@asynccontextmanager
async def secured(address: str, service: str, secure: Secure) -> AsyncIterator[str]:
    """What gRPC dials to reach `host:port` over TLS, while the block runs."""
    way = _Way(address, service, secure)
    secure.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _sweep(secure.folder)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=secure.folder))  # Of mode 0700.
    try:
        try:
            server = await asyncio.start_unix_server(way.serve, folder / "s", limit=_PIECE)
        except OSError as error:
            told = f"cannot listen: {error}"
            raise AddressError(error.errno or errno.EINVAL, told, str(folder)) from None
        try:
            yield f"unix:{folder}/s"
        finally:
            server.close()
            await way.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what those have left who were killed: sockets on which nobody listens."""
    for each in folder.glob(f"{_PREFIX}*"):
        if deserted(each / "s"):
            shutil.rmtree(each, ignore_errors=True)


class _Way:
    def __init__(self, address: str, service: str, secure: Secure) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or "/" in host:
            raise ConfigError(f"{address}: over TLS the address of the {service} is host:port")
        self._host, self._port = host.strip("[]"), int(port)
        self._service = service
        self._secure = secure
        self._made_for: Pem | None = None
        self._context: ssl.SSLContext | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._told = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(asyncio.CancelledError, OSError):
                await self._join(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await self._connect()
        except (OSError, TimeoutError) as error:  # An `SSLError` is one.
            self._tell(str(error) or type(error).__name__)
            return
        self._told = ""
        try:
            out = asyncio.create_task(_pipe(reader, back))
            home = asyncio.create_task(_bring(there, writer))
            try:
                await asyncio.wait((out, home), return_when=asyncio.FIRST_COMPLETED)
                if out.done() and out.exception():  # The service takes no more; what it said comes.
                    await asyncio.wait((home,))
            finally:
                for pipe in (out, home):
                    pipe.cancel()
                await asyncio.gather(out, home, return_exceptions=True)
        finally:
            back.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_connection(
                self._host,
                self._port,
                ssl=self._current(),
                server_hostname=self._host,
                limit=_PIECE,
            )
        shown, wanted = uris(writer.transport), self._secure.identity
        if wanted and shown != (wanted,):
            writer.transport.abort()
            raise ssl.SSLError(f"its certificate is of {' and '.join(shown)}, not of {wanted}")
        return reader, writer

    def _current(self) -> ssl.SSLContext:
        pem = self._secure.certificates.current()
        if self._context is None or pem is not self._made_for:
            self._context = client_context(pem, by_name=not self._secure.identity)
            self._made_for = pem
        return self._context

    def _tell(self, trouble: str) -> None:
        """Once, not with each attempt: gRPC makes many."""
        if trouble != self._told:
            self._told = trouble
            _log.error(
                "the %s at %s:%d cannot be reached over TLS: %s",
                *(self._service, self._host, self._port, trouble),
            )


async def _bring(there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As `_pipe`, and until all of it is gone: the connection is broken off after it."""
    await _pipe(there, writer)
    writer.transport.set_write_buffer_limits(0)
    await writer.drain()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()
