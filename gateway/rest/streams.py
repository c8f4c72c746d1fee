"""Answers that are events: NDJSON, or server-sent events where they are asked for."""

from collections.abc import Callable
from typing import Any, Final

from cove.executor.v1 import executor_pb2
from cove.gateway.v1.gateway_pb2 import WatchWorkspacesResponse as _Watch
from gateway.rest.backend import Backend
from gateway.rest.errors import status_json, status_of
from gateway.rest.exchange import JSON, Exchange, to_json
from gateway.rest.routes import Route
from gateway.rest.transcode import LAST_EVENT, to_dict

NDJSON: Final = "application/x-ndjson"
SSE: Final = "text/event-stream"

_HEADERS: Final = (("x-accel-buffering", "no"),)  # A proxy is not to hold events back.
_NO_CONTENT: Final = 204


def wanted(accept: str, offered: tuple[str, ...]) -> str:
    """The type among `offered` that the Accept header likes best, else the first."""
    best, weight = offered[0], 0.0
    for part in accept.split(","):
        kind, _, parameters = part.partition(";")
        quality = _quality(parameters)
        if quality > weight and kind.strip().lower() in offered:
            best, weight = kind.strip().lower(), quality
    return best


def as_events(route: Route, accept: str) -> Route:
    """The route that answers in events, where the caller asks for them and there is one."""
    if route.streamed and wanted(accept, (JSON, NDJSON, SSE)) != JSON:
        return route.streamed
    return route


async def relay(
    backend: Backend, exchange: Exchange, route: Route, request: Any, token: str
) -> None:
    """Answer with the events of a streaming RPC.

    A failure before the first is raised; a later one is the last event.
    """
    kind = wanted(exchange.headers.get("accept", ""), (NDJSON, SSE))
    line: Callable[[Any], bytes] = _sse if kind == SSE else _ndjson
    async with backend.stream(route, request, token) as events:
        first = await anext(events, None)
        if first is not None and _is_past_the_end(first, exchange, request):
            await exchange.begin(_NO_CONTENT, ())
            await exchange.end()
            return
        await exchange.begin(200, [("content-type", kind), *_HEADERS])
        try:
            if first is not None:
                await exchange.write(line(first))
            async for event in events:
                await exchange.write(line(event))
        except Exception as error:
            failed = to_json({"error": status_json(status_of(error))})
            await exchange.write(b"data: %s\n\n" % failed if kind == SSE else failed + b"\n")
    await exchange.end()


def _ndjson(event: Any) -> bytes:
    return to_json(to_dict(event)) + b"\n"


def _sse(event: Any) -> bytes:
    inner = getattr(event, event.WhichOneof("event"))
    place = _place_after(inner)
    name = b"" if place is None else b"id: %d\n" % place
    if event.WhichOneof("event") == "heartbeat":
        return b": heartbeat\n%s\n" % name
    return b"%sdata: %s\n\n" % (name, to_json(to_dict(event)))


def _place_after(event: Any) -> int | None:
    """Where a reader goes on that has had this event; None: nowhere."""
    match event:
        case executor_pb2.Chunk():
            return int(event.offset) + len(event.data)
        case executor_pb2.Chunks():
            return _place_after(event.chunks[-1])
        case executor_pb2.Gap():
            return int(event.to)
        case executor_pb2.Exit():
            return int(event.output_bytes)
        case executor_pb2.Heartbeat() | executor_pb2.Preview():
            return int(event.offset)
        case _Watch.SnapshotEnd() | _Watch.Put() | _Watch.Delete() | _Watch.Heartbeat():
            return int(event.revision)
    return None


def _is_past_the_end(event: Any, exchange: Exchange, request: Any) -> bool:
    """Whether a reader that resumes has had all of an output that is over.

    One that never read before is told of the exit, even if there was no output.
    """
    resumed = LAST_EVENT in exchange.headers or getattr(request, "from_offset", 0) > 0
    if not resumed or event.WhichOneof("event") != "exit":
        return False
    return bool(event.exit.output_bytes == request.from_offset)


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
