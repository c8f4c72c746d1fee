"""Terminals by WebSocket: what Attach streams as messages.

Messages of bytes are output, and input. Messages of text are JSON: here all other events of Attach,
from the client its `input` and `resize`. A failure before the first event is an answer of HTTP; a
later one is the last message of text.

A page in a browser can send no header with a WebSocket but the names of protocols that it speaks:
it may have its token there, see `PROTOCOL`. A URL, where it would be logged, is no place for one.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, MutableMapping, Sequence
from typing import Any, Final

from gateway.rest.backend import Backend
from gateway.rest.errors import answer_to, invalid, status_json, status_of
from gateway.rest.exchange import (
    JSON,
    ClientLeft,
    Headers,
    Receive,
    Scope,
    Send,
    to_json,
)
from gateway.rest.fields import fill, parse, put_path, query_json
from gateway.rest.routes import Match
from gateway.rest.transcode import to_dict
from servicekit.errors import InvalidArgument

ATTACH: Final = "cove.gateway.v1.ExecutionService.Attach"
MAX_MESSAGE: Final = 1 << 20
"""Bytes of one message."""

PROTOCOL: Final = "cove"
"""What is spoken. A client that names protocols names it, and may name `cove.bearer.` with the
base64url of its token, without padding, after it."""

_BEARER: Final = f"{PROTOCOL}.bearer."

_ENDED, _FAILED, _GOING_AWAY = 1000, 1011, 1012
_BEFORE: Final = "open."


class Terminal:
    """One WebSocket."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.path: str = scope["raw_path"].decode("ascii", "replace")
        self.headers: dict[str, str] = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        self.certificate: tuple[str, ...] = ()
        protocols: list[str] = scope.get("subprotocols", [])
        self._protocol = PROTOCOL if PROTOCOL in protocols else None
        if token := _token(protocols):
            self.headers.setdefault("authorization", f"Bearer {token}")
        self._query: bytes = scope["query_string"]
        self._receive = receive
        self._sending = send
        self._accepted = asyncio.Event()

    @property
    def accepted(self) -> bool:
        """Whether HTTP has nothing to say any more."""
        return self._accepted.is_set()

    async def serve(self, backend: Backend, match: Match, token: str) -> None:
        """Relay between the client and Attach until either ends. Raises what refuses it."""
        await self._receive()  # That somebody connects.
        first = self._opening(match)
        async with backend.exchange(match.route, self._requests(first), token) as events:
            execution = await anext(events)
            await self._send({"type": "websocket.accept", "subprotocol": self._protocol})
            self._accepted.set()
            code = _ENDED
            try:
                await self._tell(execution)
                async for event in events:
                    await self._tell(event)
            except ClientLeft:
                raise
            except Exception as error:
                code = _GOING_AWAY if backend.draining else _FAILED
                await self._say({"error": status_json(status_of(error))})
        await self._send({"type": "websocket.close", "code": code})

    async def refuse(self, error: BaseException, headers: Headers) -> None:
        """Answer with HTTP instead."""
        code, more, status = answer_to(error, conditional=False)
        body = to_json(status_json(status))
        pairs = [("content-type", JSON), ("content-length", str(len(body))), *headers, *more]
        await self._send(
            {
                "type": "websocket.http.response.start",
                "status": code,
                "headers": [(name.encode(), value.encode("latin-1")) for name, value in pairs],
            }
        )
        await self._send({"type": "websocket.http.response.body", "body": body})

    def _opening(self, match: Match) -> Any:
        request: Any = match.route.request()
        request.open.SetInParent()
        elsewhere = {path.removeprefix(_BEFORE): "is in the path" for path in match.values}
        elsewhere["start"] = "start it before, then attach"
        given, violations = query_json(request.open.DESCRIPTOR, self._query, elsewhere)
        violations += fill(request.open, given)
        for path, value in match.values.items():
            violations += put_path(request, path, value)
        if violations:
            raise invalid(violations)
        return request

    async def _requests(self, first: Any) -> AsyncIterator[Any]:
        """What the client sends; one message is read when the one before was taken."""
        yield first
        await self._accepted.wait()
        while True:
            message = await self._receive()
            if message["type"] != "websocket.receive":
                raise ClientLeft
            request = type(first)()
            if (data := message.get("bytes")) is not None:
                request.input.data = data
            else:
                violations = fill(request, parse(message["text"].encode()))
                if violations:
                    raise invalid(violations)
            if not request.WhichOneof("event"):
                raise InvalidArgument("event", "neither `input` nor `resize`")
            yield request

    async def _tell(self, event: Any) -> None:
        if event.HasField("chunk"):
            await self._send({"type": "websocket.send", "bytes": event.chunk.data})
        else:
            await self._say(to_dict(event))

    async def _say(self, value: Any) -> None:
        await self._send({"type": "websocket.send", "text": to_json(value).decode()})

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        """Waits while the client does not read. Raises `ClientLeft`."""
        try:
            await self._sending(message)
        except OSError:
            raise ClientLeft from None


def _token(protocols: Sequence[str]) -> str:
    """The token among the names of protocols; empty: there is none, or it cannot be read."""
    for each in protocols:
        if each.startswith(_BEARER):
            coded = each.removeprefix(_BEARER)
            try:
                padded = coded + "=" * (-len(coded) % 4)
                return base64.b64decode(padded, "-_", validate=True).decode("ascii")
            except ValueError:
                return ""
    return ""
