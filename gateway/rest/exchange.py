"""One HTTP request and its answer, over ASGI."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

from servicekit.errors import DeadlineExceeded
from servicekit.status import MessageTooLarge

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers: TypeAlias = Iterable[tuple[str, str]]

CERTIFICATE: Final = "certificate"
JSON: Final = "application/json"
# Nobody is to take answers for a page.
_ALWAYS: Final = (("x-content-type-options", "nosniff"),)


def source(scope: Scope) -> str:
    """From where a connection comes, as gRPC names peers."""
    host, port = scope.get("client") or ("", 0)
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


def certificate(scope: Scope) -> tuple[str, ...]:
    """The URIs in the certificate that a client has shown."""
    found: tuple[str, ...] = scope.get("state", {}).get(CERTIFICATE, ())
    return found


class ClientLeft(Exception):
    """The client is gone: there is nobody to answer."""


class Exchange:
    """`body_timeout`: seconds in which the next part of the body must come."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, body_timeout: float) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["raw_path"].decode("ascii", "replace")
        self.query: bytes = scope["query_string"]
        self.certificate: tuple[str, ...] = ()
        self.headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            self._add_header(name.decode("latin-1"), value.decode("latin-1"))
        self.started = False
        self._receive = receive
        self._send = send
        self._body_timeout = body_timeout
        self._returned: list[tuple[str, str]] = []
        self._body_ended = asyncio.Event()
        self._left = False

    def returning(self, *headers: tuple[str, str]) -> None:
        """Have every answer carry these."""
        self._returned += headers

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises `MessageTooLarge` if it has more than `limit` bytes."""
        announced = self.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > limit:
            raise MessageTooLarge("the message is too large", limit=str(limit))
        body = bytearray()
        async for part in self.parts():
            body += part
            if len(body) > limit:
                raise MessageTooLarge("the message is too large", limit=str(limit))
        return bytes(body)

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes; no more than that is held. Raises `ClientLeft`."""
        more = True
        while more:
            try:
                async with asyncio.timeout(self._body_timeout):
                    message = await self._receive()
            except TimeoutError:
                raise DeadlineExceeded("the body does not come") from None
            if message["type"] == "http.disconnect":
                self._left = True
                raise ClientLeft
            more = message.get("more_body", False)
            if part := message.get("body", b""):
                yield part
        self._body_ended.set()

    @asynccontextmanager
    async def watched(self, *, body_follows: bool = False) -> AsyncIterator[None]:
        """Inside, the client's leaving ends the work: `ClientLeft` comes out of it.

        `body_follows`: `parts` is read inside, and tells itself of a client that
        leaves before the body's end.
        """
        if not body_follows:
            self._body_ended.set()
        task = asyncio.current_task()
        assert task is not None

        def end(_: object) -> None:
            task.cancel()

        watch = asyncio.create_task(self._leaving())
        watch.add_done_callback(end)
        try:
            yield
        except asyncio.CancelledError:
            if self._left and task.uncancel() == 0:
                raise ClientLeft from None
            raise
        finally:
            watch.remove_done_callback(end)
            watch.cancel()

    async def begin(self, code: int, headers: Headers, kept: str = "no-store") -> None:
        """`kept`: for how long others may keep the answer, as Cache-Control says it."""
        self.started = True
        pairs = [("cache-control", kept), *_ALWAYS, *self._returned, *headers]
        await self._send(
            {
                "type": "http.response.start",
                "status": code,
                "headers": [(name.encode(), value.encode("latin-1")) for name, value in pairs],
            }
        )

    async def write(self, data: bytes) -> None:
        """Waits while the client does not read."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def answer(self, code: int, value: Any, headers: Headers = ()) -> None:
        """Answer with JSON."""
        body = to_json(value)
        await self.begin(
            code, [("content-type", JSON), ("content-length", str(len(body))), *headers]
        )
        await self.end(body)

    def _add_header(self, name: str, value: str) -> None:
        before = self.headers.get(name)
        self.headers[name] = value if before is None else f"{before}, {value}"

    async def _leaving(self) -> None:
        await self._body_ended.wait()
        while not self._left:
            self._left = (await self._receive())["type"] == "http.disconnect"


def to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
