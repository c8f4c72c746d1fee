"""Sends spans to a collector, by OTLP over gRPC.

Spans wait in memory, a bounded number of them, and go in batches: what a collector is too slow
for, or that goes wrong while it is away, is counted and dropped. No call ever waits for it.
"""

import asyncio
import logging
import os
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import grpc
from prometheus_client import CollectorRegistry, Counter

from servicekit import tracing
from servicekit.config import ServerConfig, StartError
from servicekit.release import release
from servicekit.spans import Kind, Recorder, Span

_log = logging.getLogger(__name__)

_EXPORT: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_UNIX: Final = "unix:"
_SCOPE: Final = "cove"
_LIMIT: Final = 16_384
"""Spans that wait, at most."""
_BATCH: Final = 256
"""Spans that go at once: making a message of them holds up everything else for about a ms."""
_LINGER: Final = 1.0
"""Seconds for which spans gather."""
_PATIENCE: Final = 5.0
"""Seconds that the collector has for a batch,"""
_TRIES: Final = 3
"""and how often it is asked to take it when it is away."""
_LAST: Final = 3.0
"""Seconds in which the rest is sent at the end."""
_AWAY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_TRACE_BITS: Final = 64

Encode: TypeAlias = Callable[[Sequence[Span]], bytes]


class Traces:
    """The recorder of one process."""

    def __init__(self, ratio: float, dropped: Counter, sent: Counter) -> None:
        self._bound = round(ratio * (1 << _TRACE_BITS))
        self._waiting: deque[Span] = deque()
        self._dropped = dropped
        self._sent = sent
        self._some = asyncio.Event()
        self._many = asyncio.Event()
        self._closed = False
        self._told = False

    def begin(self, traceparent: str, *, given: bool) -> tuple[str, str, bool]:
        trace = tracing.trace_of(traceparent)
        if not given:
            sampled = int(trace[16:], 16) < self._bound
            return tracing.written(trace, sampled=sampled), "", sampled
        if not tracing.is_sampled(traceparent):
            return traceparent, "", False
        return tracing.written(trace, sampled=True), tracing.span_of(traceparent), True

    def record(self, span: Span) -> None:
        if len(self._waiting) >= _LIMIT:
            self._dropped.inc()
            return
        self._waiting.append(span)
        self._some.set()
        if len(self._waiting) >= _BATCH:
            self._many.set()

    async def send(self, call: Any, encode: Encode) -> None:
        """Send what comes, until `close` and what is there then."""
        while not self._closed:
            await self._some.wait()
            # Not by `wait_for`, which in Python 3.11 may lose a cancel.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LINGER):
                    await self._many.wait()
            await self._rest(call, encode)

    def close(self) -> None:
        self._closed = True
        self._some.set()
        self._many.set()

    async def _rest(self, call: Any, encode: Encode) -> None:
        while self._waiting:
            size = min(len(self._waiting), _BATCH)
            batch = [self._waiting.popleft() for _ in range(size)]
            try:
                await self._export(call, encode(batch))
            except grpc.aio.AioRpcError as error:
                self._dropped.inc(size)
                if not self._told:  # Once for each time that it is away.
                    fields = {"code": error.code().name, "spans": size}
                    _log.warning("the collector takes no spans", extra={"fields": fields})
                self._told = True
            else:
                self._told = False
                self._sent.inc(size)
        self._some.clear()
        self._many.clear()

    async def _export(self, call: Any, message: bytes) -> None:
        for left in reversed(range(_TRIES)):
            try:
                await call(message, timeout=_PATIENCE)
            except grpc.aio.AioRpcError as error:
                if not left or error.code() not in _AWAY:
                    raise
                await asyncio.sleep(_LINGER)
            else:
                return


@asynccontextmanager
async def recording(
    config: ServerConfig, registry: CollectorRegistry
) -> AsyncIterator[Recorder | None]:
    """Who records spans while the block runs; None where the config wants none.

    Raises `StartError` without the extra `otel`.
    """
    if not config.traces:
        yield None
        return
    try:
        encode = _encoder(config.service)
    except ImportError:
        raise StartError(
            "COVE_TRACES: OTLP needs opentelemetry-proto: pip install 'cove-server[otel]'"
        ) from None
    traces = Traces(
        config.traces_ratio,
        Counter("cove_spans_dropped", "Spans that no collector has.", registry=registry),
        Counter("cove_spans_sent", "Spans that the collector has.", registry=registry),
    )
    async with _channel(config.traces) as channel:
        call: Any = channel.unary_unary(_EXPORT)
        sending = asyncio.create_task(traces.send(call, encode))
        try:
            yield traces
        finally:
            traces.close()
            await asyncio.wait([sending], timeout=_LAST)
            sending.cancel()
            # However that goes: no stop waits for a collector.
            await asyncio.wait([sending], timeout=_LAST)


def _channel(url: str) -> grpc.aio.Channel:
    if url.startswith(_UNIX):
        return grpc.aio.insecure_channel(url)
    parts = urlsplit(url)
    if parts.scheme == "https":
        return grpc.aio.secure_channel(parts.netloc, grpc.ssl_channel_credentials())
    return grpc.aio.insecure_channel(parts.netloc)


def _encoder(service: str) -> Encode:
    """Raises ImportError. Nothing of OpenTelemetry is imported before."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource
    from opentelemetry.proto.trace.v1 import trace_pb2 as pb

    def pair(key: str, value: str | int) -> KeyValue:
        told = AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value)
        return KeyValue(key=key, value=told)

    resource = Resource(attributes=[pair(*each) for each in _resource(service).items()])
    scope = InstrumentationScope(name=_SCOPE)
    kinds = {
        Kind.SERVER: pb.Span.SpanKind.SPAN_KIND_SERVER,
        Kind.INTERNAL: pb.Span.SpanKind.SPAN_KIND_INTERNAL,
    }
    fine = pb.Status()

    def status(failed: str) -> pb.Status:
        if not failed:
            return fine
        return pb.Status(code=pb.Status.StatusCode.STATUS_CODE_ERROR, message=failed)

    def encode(spans: Sequence[Span]) -> bytes:
        sent = [
            pb.Span(
                trace_id=bytes.fromhex(tracing.trace_of(span.traceparent)),
                span_id=bytes.fromhex(tracing.span_of(span.traceparent)),
                parent_span_id=bytes.fromhex(span.parent),
                flags=1,
                name=span.name,
                kind=kinds[span.kind],
                start_time_unix_nano=span.began,
                end_time_unix_nano=span.ended,
                attributes=[pair(key, value) for key, value in span.attributes.items()],
                status=status(span.failed),
            )
            for span in spans
        ]
        scoped = pb.ScopeSpans(scope=scope, spans=sent)
        resourced = pb.ResourceSpans(resource=resource, scope_spans=[scoped])
        return ExportTraceServiceRequest(resource_spans=[resourced]).SerializeToString()

    return encode


def _resource(service: str) -> dict[str, str | int]:
    """Which process it is, by semantic conventions."""
    return {
        "service.name": f"cove-{service}",
        "service.namespace": "cove",
        "service.version": release(),
        "service.instance.id": f"{socket.gethostname()}/{os.getpid()}/{time.time_ns()}",
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
    }
