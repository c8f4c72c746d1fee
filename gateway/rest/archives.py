"""Archives as bodies: what FileService streams as messages is a plain tar stream here."""

from contextlib import aclosing
from typing import Any, Final

from gateway.rest.backend import Backend
from gateway.rest.errors import invalid
from gateway.rest.exchange import Exchange
from gateway.rest.fields import fill, put_path, query_json
from gateway.rest.routes import Match
from gateway.rest.transcode import put_key, request_of, to_dict
from gateway.rest.uploads import upload

PACK: Final = "cove.gateway.v1.FileService.ReadArchive"
UNPACK: Final = "cove.gateway.v1.FileService.WriteArchive"
_TAR: Final = "application/x-tar"


class Archives:
    """Answers the routes of PACK and UNPACK."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def read(self, exchange: Exchange, match: Match, token: str) -> None:
        """The archive. One that breaks off lacks its end, and so does the body."""
        request = request_of(match, exchange, b"")
        async with (
            exchange.watched(),
            self._backend.stream(match.route, request, token) as stream,
        ):
            async with aclosing(stream) as events:
                event = await anext(events)
                await exchange.begin(200, [("content-type", _TAR)])
                if exchange.method == "HEAD":
                    await exchange.end()
                    return
                while event.WhichOneof("event") != "end":
                    await exchange.write(event.data)
                    event = await anext(events)
            await exchange.end()

    async def write(self, exchange: Exchange, match: Match, token: str) -> None:
        """The body is unpacked, all of it or nothing."""
        first = _header(match, exchange)
        response = await upload(self._backend, exchange, match.route, first, token)
        await exchange.answer(200, to_dict(response.unpacked))


def _header(match: Match, exchange: Exchange) -> Any:
    """The first message of a WriteArchive. Raises `InvalidArgument`."""
    first: Any = match.route.request()
    header = first.header
    header.SetInParent()
    elsewhere = {path.removeprefix("header."): "is in the path" for path in match.values}
    given, violations = query_json(header.DESCRIPTOR, exchange.query, elsewhere)
    violations += fill(header, given)
    for path, value in match.values.items():
        violations += put_path(first, path, value)
    violations += put_key(header, "request_id", exchange.headers)
    if violations:
        raise invalid(violations)
    return first
