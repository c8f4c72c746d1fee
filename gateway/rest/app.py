"""Puts HTTP together: the routes, the socket behind, the server in front."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from cove.gateway.v1 import gateway_pb2
from gateway.console import Console
from gateway.identity.certificates import Handed
from gateway.rest import document
from gateway.rest.archives import PACK, UNPACK, Archives
from gateway.rest.backend import Backend, backend
from gateway.rest.errors import (
    MethodNotAllowed,
    RouteNotFound,
    ShuttingDown,
    UpgradeRequired,
    answer_to,
    status_json,
    status_of,
)
from gateway.rest.exchange import ClientLeft, Exchange, Receive, Scope, Send, certificate, source
from gateway.rest.files import LIST, READ, WRITE, Files
from gateway.rest.input import STREAM, Input
from gateway.rest.input import WRITE as WRITE_INPUT
from gateway.rest.origins import refuse_browsers, refuse_other_sites
from gateway.rest.routes import Match, Routes
from gateway.rest.server import listening
from gateway.rest.streams import as_events, relay
from gateway.rest.terminal import ATTACH, Terminal
from gateway.rest.transcode import IF_MATCH, IF_NONE_MATCH, answer_of, request_of
from servicekit import calls
from servicekit.errors import Unauthenticated
from servicekit.identity import TENANT_KEY, Authenticator, Caller
from servicekit.proxies import NO_PROXIES, Proxies
from servicekit.tls import Certificates

HEALTH: Final = "/healthz"
READY: Final = "/readyz"
FIXED: Final = (HEALTH, READY, document.PATH)
"""The paths that no RPC is behind."""

_READING: Final = ("GET", "HEAD")
_NO_TENANT: Final = "?"
"""In place of what gRPC takes in no header: it is no tenant either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestConfig:
    """What HTTP needs to know."""

    target: str
    """The gateway's own gRPC address: `unix:/path` or `host:port`."""

    address: str = "127.0.0.1:0"
    """Where to listen, `host:port`. Port 0 takes a free one."""

    max_body: int = 4 << 20
    """Bytes of a JSON body. A file's content has no limit here."""

    local_only: bool = False
    """Refuse what a web page in a browser on this machine could have made: for a
    gateway that asks for no token."""

    idle_timeout: timedelta = timedelta(seconds=15)
    """How long a connection may be idle, or take for its headers; whole seconds."""

    body_timeout: timedelta = timedelta(seconds=60)
    """How long the next part of a body may take."""

    unread_timeout: timedelta = timedelta(minutes=5)
    """How long a client may take nothing of its answer."""

    grace: timedelta = timedelta(seconds=10)
    """How long open requests may go on when it stops."""

    console: Path | None = None
    """Folder with the web console, if it is served."""


@dataclass(frozen=True, slots=True)
class Tls:
    """What HTTPS needs."""

    certificates: Certificates
    handed: Handed


@asynccontextmanager
async def rest(
    config: RestConfig,
    authenticator: Authenticator | None = None,
    stranger: Callable[[str, calls.Call], None] = lambda _path, _call: None,
    tls: Tls | None = None,
    proxies: Proxies = NO_PROXIES,
) -> AsyncIterator[str]:
    """Serve HTTP while the block runs. Yields where, with the real port.

    `authenticator` refuses strangers before anything of their body is read; the
    decision is made behind, and `stranger` is told of each, with the path of the RPC.
    With `tls` it is HTTPS, and what one of the `proxies` says of a caller counts.
    Raises `AddressError`, and `ConfigError` where the console's folder holds none. Leave the
    block before what serves `target` stops.
    """
    routes = Routes.of(gateway_pb2.DESCRIPTOR.services_by_name.values())
    async with (
        backend(config.target) as behind,
        listening(
            Rest(
                *(config, routes, behind, authenticator, stranger),
                *(tls.handed if tls else None, proxies),
            ),
            config.address,
            idle=max(1, int(config.idle_timeout.total_seconds())),
            unread=config.unread_timeout.total_seconds(),
            grace=config.grace.total_seconds(),
            drain=behind.drain,
            certificates=tls.certificates if tls else None,
        ) as address,
    ):
        yield address


class Rest:
    """The ASGI app."""

    def __init__(
        self,
        config: RestConfig,
        routes: Routes,
        behind: Backend,
        authenticator: Authenticator | None,
        stranger: Callable[[str, calls.Call], None],
        handed: Handed | None,
        proxies: Proxies,
    ) -> None:
        self._config = config
        self._handed = handed
        self._proxies = proxies
        self._stranger = stranger
        self._authenticator = authenticator
        self._routes = routes
        self._behind = behind
        self._document = document.Document()
        self._console = Console(config.console) if config.console else None
        listing = next(each for each in routes if each.rpc.full_name == LIST)
        files = Files(behind, listing)
        writing = next(each for each in routes if each.rpc.full_name == WRITE_INPUT)
        written = Input(behind, writing)
        archives = Archives(behind)
        self._raw: Final = {
            READ: files.read,
            WRITE: files.write,
            PACK: archives.read,
            UNPACK: archives.write,
            STREAM: written.write,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._attach(Terminal(scope, receive, send), scope)
            return
        exchange = Exchange(scope, receive, send, self._config.body_timeout.total_seconds())
        call = calls.from_metadata(exchange.path, exchange.headers)
        call.source = self._see(exchange, scope)
        calls.begin(call)
        exchange.returning(
            (calls.CORRELATION_KEY, call.correlation_id), (calls.TRACE_KEY, call.traceparent)
        )
        try:
            await self._answer(exchange)
        except ClientLeft:
            return
        except asyncio.CancelledError:
            if not self._behind.draining or exchange.started:
                raise
            await _fail(exchange, ShuttingDown("the service is stopping"))
        except Exception as error:
            if exchange.started:
                status_of(error)  # Which logs what nobody expects. The connection breaks off.
                return
            await _fail(exchange, error)

    async def _answer(self, exchange: Exchange) -> None:
        if exchange.path in FIXED and exchange.method not in _READING:
            raise MethodNotAllowed(exchange.path, _READING)
        if exchange.path in (HEALTH, READY):
            ready = exchange.path == HEALTH or await self._behind.ready()
            text = "SERVING" if ready else "NOT_SERVING"
            await exchange.answer(200 if ready else 503, {"status": text})
            return
        if self._config.local_only:
            refuse_browsers(exchange.headers)
        if self._console and self._console.owns(exchange.path):
            await self._console.answer(exchange)
            return
        if exchange.path == document.PATH:
            await self._admit(exchange, "")
            await self._document.answer(exchange)
            return
        match = self._routes.find(exchange.method, exchange.path)
        token = await self._admit(exchange, match.route.path)
        if match.route.rpc.full_name == ATTACH:
            raise UpgradeRequired(exchange.path)
        if raw := self._raw.get(match.route.rpc.full_name):
            await raw(exchange, match, token)
            return
        route = as_events(match.route, exchange.headers.get("accept", ""))
        await self._transcode(exchange, Match(route, match.values), token)

    def _see(self, request: Exchange | Terminal, scope: Scope) -> str:
        """From where it comes, and what certificate was shown: here, or to a proxy."""
        seen = Caller(request.headers, source(scope), certificate(scope))
        caller = self._proxies.behind(seen)
        request.certificate = caller.certificate
        return caller.peer

    async def _attach(self, terminal: Terminal, scope: Scope) -> None:
        call = calls.from_metadata(terminal.path, terminal.headers)
        call.source = self._see(terminal, scope)
        calls.begin(call)
        try:
            if self._config.local_only:
                refuse_browsers(terminal.headers)
            match = self._routes.find("GET", terminal.path)
            if match.route.rpc.full_name != ATTACH:
                raise RouteNotFound("this path is not for WebSockets", path=terminal.path)
            token = await self._admit(terminal, match.route.path)
            await terminal.serve(self._behind, match, token)
        except ClientLeft:
            return
        except asyncio.CancelledError:
            if not self._behind.draining or terminal.accepted:
                raise
            await terminal.refuse(ShuttingDown("the service is stopping"), ())
        except Exception as error:
            if terminal.accepted:
                status_of(error)  # Which logs what nobody expects. The connection breaks off.
                return
            await terminal.refuse(error, ((calls.CORRELATION_KEY, call.correlation_id),))

    async def _admit(self, request: Exchange | Terminal, path: str) -> str:
        """What a caller who is known is known by. Raises `Unauthenticated`."""
        token = request.headers.get("authorization", "")
        if not token and self._handed:
            token = self._handed.authorization(request.certificate)
            if token:  # Browsers show it by themselves, whatever page asks.
                refuse_other_sites(request.headers)
        token = token if token.isascii() and token.isprintable() else ""
        call = calls.current()
        tenant = request.headers.get(TENANT_KEY, "")
        call.acting_for = tenant if tenant.isascii() and tenant.isprintable() else _NO_TENANT
        if self._authenticator:
            metadata = {"authorization": token} if token else {}
            try:
                await self._authenticator.authenticate(Caller(metadata, call.source))
            except Unauthenticated:
                self._stranger(path, call)
                raise
        return token

    async def _transcode(self, exchange: Exchange, match: Match, token: str) -> None:
        route = match.route
        if route.rpc.server_streaming and exchange.method == "HEAD":
            raise MethodNotAllowed(exchange.path, [route.http_method])
        body = await exchange.body(self._config.max_body)
        request = request_of(match, exchange, body)
        async with exchange.watched():
            if route.rpc.server_streaming:
                await relay(self._behind, exchange, route, request, token)
                return
            response = await self._behind.unary(route, request, token)
        code, value, headers = answer_of(route, request, response)
        await exchange.answer(code, value, headers)


async def _fail(exchange: Exchange, error: BaseException) -> None:
    conditional = IF_MATCH in exchange.headers or IF_NONE_MATCH in exchange.headers
    code, headers, status = answer_to(error, conditional=conditional)
    await exchange.answer(code, status_json(status), headers)
