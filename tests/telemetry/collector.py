"""Stands in for a collector of traces: takes OTLP over gRPC on a port of its own.

It reads with the messages that OpenTelemetry publishes, so what it cannot prove is how a real one
stores and shows them, nor what it does under load; that it may refuse or be away it can.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

_BOUND = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A span that came."""

    service: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    code: int
    message: str
    seconds: float
    attributes: dict[str, Any]
    resource: dict[str, Any]


@dataclass
class Collector:
    url: str = ""
    spans: list[Seen] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def of(self, trace: str) -> list[Seen]:
        return [span for span in self.spans if span.trace == trace]

    async def until(self, enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(_BOUND), self.changed:
            await self.changed.wait_for(enough)

    async def export(self, data: bytes, context: object) -> bytes:
        self.raw.append(data)
        for resourced in ExportTraceServiceRequest.FromString(data).resource_spans:
            resource = _plain(resourced.resource.attributes)
            for scoped in resourced.scope_spans:
                self.spans += [_seen(resource, each) for each in scoped.spans]
        async with self.changed:
            self.changed.notify_all()
        return ExportTraceServiceResponse().SerializeToString()


@asynccontextmanager
async def collecting(address: str = "") -> AsyncIterator[Collector]:
    """On a port of its own, or on `unix:/path`."""
    collector = Collector()
    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(collector.export)
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {"Export": handler}),)
    )
    port = server.add_insecure_port(address or "127.0.0.1:0")
    await server.start()
    collector.url = address or f"http://127.0.0.1:{port}"
    try:
        yield collector
    finally:
        await server.stop(0)


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def _seen(resource: dict[str, Any], span: Any) -> Seen:
    return Seen(
        service=resource["service.name"],
        name=span.name,
        kind=span.kind,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        code=span.status.code,
        message=span.status.message,
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        attributes=_plain(span.attributes),
        resource=resource,
    )
