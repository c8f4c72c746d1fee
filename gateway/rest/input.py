"""Input as bytes: what StreamInput streams as messages is a plain body here."""

from collections.abc import Awaitable
from typing import Any, Final

from gateway.feeding import Feed
from gateway.rest.backend import Backend
from gateway.rest.exchange import Exchange
from gateway.rest.routes import Match, Route
from gateway.rest.transcode import request_of, to_dict

STREAM: Final = "cove.gateway.v1.ExecutionService.StreamInput"
WRITE: Final = "cove.gateway.v1.ExecutionService.WriteInput"


class Input:
    """Answers the route of STREAM. `writing`: the route of WRITE, which does the work."""

    def __init__(self, backend: Backend, writing: Route) -> None:
        self._backend = backend
        self._writing = writing

    async def write(self, exchange: Exchange, match: Match, token: str) -> None:
        """The body is written while it comes; a command that does not read holds it up."""
        asked = request_of(match, exchange, b"")

        def write(**fields: Any) -> Awaitable[Any]:
            request = self._writing.request(name=asked.name, **fields)
            return self._backend.unary(self._writing, request, token)

        if not asked.HasField("offset"):  # Which is told together with all else that is wrong.
            await write(writer=asked.writer, take_over=asked.take_over)
        feed = Feed(write, asked.offset, asked.writer, take_over=asked.take_over)
        async with exchange.watched(body_follows=True), feed:
            parts = exchange.parts()
            while part := await feed.next(_next(parts)):
                await feed.put(part)
            await feed.put(b"", close=asked.close)
        await exchange.answer(200, to_dict(match.route.response(**_answer(feed.state))))


def _answer(state: Any) -> dict[str, Any]:
    return {"offset": state.offset, "closed": state.closed}


async def _next(parts: Any) -> bytes:
    """Nothing at the end."""
    found: bytes = await anext(parts, b"")
    return found
