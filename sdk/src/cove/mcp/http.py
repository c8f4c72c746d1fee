"""The server over streamable HTTP, for those who show its token."""

import asyncio
import hmac
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import uvicorn
from mcp.server import Server
from mcp.server.transport_security import TransportSecuritySettings

PATH: Final = "/mcp"

_MOST_BODY: Final = 8 << 20
_GRACE: Final = 2
_BACKLOG: Final = 128
_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
_REFUSAL: Final = b"Show the token of this server: `authorization: Bearer <token>`.\n"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """`host:port`. Raises `ValueError`."""
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isascii() or not port.isdecimal():
            raise ValueError(f"{text} is not of the form HOST:PORT")
        if int(port) > 65_535:
            raise ValueError(f"{port} is not a port")
        return cls(host.removeprefix("[").removesuffix("]"), int(port))

    @property
    def is_loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def listen(self) -> socket.socket:
        """Raises `OSError`."""
        family, kind, _, _, where = socket.getaddrinfo(
            self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        return listener


@dataclass(frozen=True, slots=True)
class Guard:
    """Lets nobody pass who does not show the token."""

    app: Any
    token: str = field(repr=False)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or self._knows(scope):
            await self.app(scope, receive, send)
            return
        headers = [(b"www-authenticate", b"Bearer"), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": _REFUSAL})

    def _knows(self, scope: Any) -> bool:
        shown = [value for name, value in scope.get("headers", []) if name == b"authorization"]
        expected = f"Bearer {self.token}".encode()
        return len(shown) == 1 and hmac.compare_digest(shown[0], expected)


async def serve(
    server: Server[Any], address: Address, token: str, ready: Callable[[str], None]
) -> None:
    """Serve until SIGTERM or SIGINT. `ready` is told the URL. Raises `OSError`.

    A page of a browser has no business here, whatever name its site gave to this address: the
    Host must be loopback's or the one that is listened on, an Origin loopback's.
    """
    listener = address.listen()
    port = listener.getsockname()[1]
    host = f"[{address.host}]" if ":" in address.host else address.host
    hosts = {host, *_LOOPBACK}
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        max_request_body_size=_MOST_BODY,
        transport_security=TransportSecuritySettings(
            allowed_hosts=[*hosts, *(f"{each}:*" for each in hosts)],
            allowed_origins=[f"http://{each}:*" for each in _LOOPBACK],
        ),
    )
    config = uvicorn.Config(
        Guard(app, token),
        lifespan="on",
        ws="none",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE,
    )
    running = _Server(config, lambda: ready(f"http://{host}:{port}{PATH}"))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.stop)
    await running.serve(sockets=[listener])


class _Server(uvicorn.Server):
    """Says when it is ready, and leaves signals to the loop."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    def stop(self) -> None:
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()
