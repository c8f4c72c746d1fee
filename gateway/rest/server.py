"""uvicorn, inside a loop that others use as well."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from gateway.rest.greeting import Greeter
from gateway.rest.protocol import Connections, protocol
from gateway.rest.terminal import MAX_MESSAGE
from servicekit.sockets import AddressError
from servicekit.tls import Certificates, ServerContext

_MAX_HEAD: Final = 64 << 10
_CLOSING: Final = 5.0  # Seconds for handlers to end that were cancelled.
_FLUSHING: Final = 2.0  # Seconds for clients to take the rest of their answers.
_TICK: Final = 0.01
_MAX_PORT: Final = 65_535
_BACKLOG: Final = 512


@asynccontextmanager
async def listening(
    app: Any,
    address: str,
    *,
    idle: int,
    unread: float,
    grace: float,
    drain: Callable[[], None],
    certificates: Certificates | None = None,
) -> AsyncIterator[str]:
    """Serve an ASGI app at `host:port` while the block runs; yields that, with the real port.

    A connection may be idle, and may take for its headers, `idle` seconds; its client may
    take nothing of an answer for `unread` seconds. On leaving: nobody new, `drain` is
    called, then open requests have `grace` seconds. Raises `AddressError`.
    """
    listener = _listener(address)
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=protocol(Connections(), unread),
        ws=_WebSocket,
        ws_max_size=MAX_MESSAGE,
        ws_ping_timeout=None,  # Who is held up by a command that does not read is there still.
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,  # Each call is logged by the interceptor behind.
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=idle,
        h11_max_incomplete_event_size=_MAX_HEAD,
    )
    if certificates:
        config.load()
        config.ssl = ServerContext.of(certificates)
    server = _Server(config, grace)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await server.ready.wait()
        host, port = address.rpartition(":")[0], listener.getsockname()[1]
        yield f"{host}:{port}"
    finally:
        server.stop()
        drain()
        await serving


class _Server(uvicorn.Server):
    """Leaves signals to the process it is in."""

    def __init__(self, config: uvicorn.Config, grace: float) -> None:
        super().__init__(config)
        self._grace = grace
        self.ready = asyncio.Event()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        self.should_exit = True
        self._stopping.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, with limits to handshakes."""
        config, loop = self.config, asyncio.get_running_loop()
        kind: Any = config.http_protocol_class

        def connection() -> asyncio.Protocol:
            made: asyncio.Protocol = kind(
                config=config, server_state=self.server_state, app_state={}
            )
            return made

        servers: list[Any] = [
            Greeter(each, connection, config.ssl, config.timeout_keep_alive)
            if config.ssl
            else await loop.create_server(connection, sock=each, backlog=_BACKLOG)
            for each in sockets or ()
        ]
        self.servers = servers
        self.started = True
        self.ready.set()

    async def main_loop(self) -> None:
        """Once a second, for the Date header; uvicorn's own wakes up ten times as often."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, without its pauses, and nothing of it goes on afterwards."""
        state = self.server_state
        for server in self.servers:
            server.close()
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(set(state.tasks), timeout=self._grace)
        for task in state.tasks:
            task.cancel()
        if state.tasks:
            await asyncio.wait(set(state.tasks), timeout=_CLOSING)
        with suppress(TimeoutError):
            async with asyncio.timeout(_FLUSHING):
                while state.connections:  # noqa: ASYNC110 - uvicorn has no event for it.
                    await asyncio.sleep(_TICK)
        for connection in list(state.connections):
            connection.transport.abort()


class _WebSocket(WebSocketsSansIOProtocol):
    """uvicorn's own keeps the answers to all pings of a client that reads none."""

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()


def _listener(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > _MAX_PORT:
        raise AddressError(errno.EINVAL, "not host:port", address)
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    # asyncio sends without delay only where the protocol is named; else each answer
    # waits 40 ms for the client to acknowledge its headers.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((bare, int(port)))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise AddressError(
            error.errno or errno.EADDRINUSE, f"cannot listen: {error}", address
        ) from None
    return listener
