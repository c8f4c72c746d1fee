"""Counts and logs every call that ended, in batches.

Between two calls gRPC's threads fight over the interpreter, so that a line
written there costs several times what it costs in a batch. Lines come at most
50 ms late; counters are brought up to date before they are read.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.registry import Collector

from servicekit.calls import Call
from servicekit.metrics import BUCKETS
from servicekit.spans import Kind, Span

_log = logging.getLogger("servicekit.calls")

_BATCH_SECONDS: Final = 0.05
_FAULTS: Final = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)
"""With these a server has failed, by the semantic conventions; with others its caller has."""


class Observer:
    """Of one server, with metrics in the registry given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        registry.register(_Flush(self.flush))  # Asked first, as it was registered first.
        self._calls = Counter(
            "cove_calls",
            "Calls that ended, by code and reason.",
            ["method", "code", "reason"],
            registry=registry,
        )
        self._seconds = Histogram(
            "cove_call_seconds",
            "How long calls took.",
            ["method"],
            registry=registry,
            buckets=BUCKETS,
        )
        self._open = Gauge("cove_calls_open", "Calls going on.", ["method"], registry=registry)
        self._ended: list[tuple[float, Call, str, str, float]] = []
        self._timer: asyncio.TimerHandle | None = None

    def of(self, method: str) -> "Calls":
        calls = Calls(self.ended)
        self._open.labels(method).set_function(lambda: calls.open)
        return calls

    def ended(self, call: Call, code: str, reason: str, seconds: float) -> None:
        """The span of the call is made with its line in the log: of the same ids and times."""
        self._ended.append((time.time(), call, code, reason, seconds))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_BATCH_SECONDS, self.flush)

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        ended, self._ended, self._timer = self._ended, [], None
        logged = _log.isEnabledFor(logging.INFO)
        for left, (when, call, code, reason, seconds) in enumerate(ended, start=1 - len(ended)):
            self._calls.labels(call.method, code, reason).inc()
            self._seconds.labels(call.method).observe(seconds)
            if call.recorder is not None:
                call.recorder.record(_span(when, call, code, reason, seconds))
            if logged:
                _tell(when, call, code, reason, seconds, more=left < 0)


class Calls:
    """Those of one RPC."""

    def __init__(self, ended: Callable[[Call, str, str, float], None]) -> None:
        self.open = 0
        self._ended = ended

    def began(self) -> None:
        self.open += 1

    def ended(self, call: Call, code: str, reason: str, seconds: float) -> None:
        self.open -= 1
        self._ended(call, code, reason, seconds)


class _Flush(Collector):
    """Has no metrics of its own: being asked for them is what it waits for."""

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush

    def collect(self) -> Iterator[Metric]:
        self._flush()
        return iter(())


def _span(when: float, call: Call, code: str, reason: str, seconds: float) -> Span:
    """Names are those of OpenTelemetry's semantic conventions, and of ours below `cove.`."""
    method = call.method[1:]
    attributes = {
        "rpc.system.name": "grpc",
        "rpc.method": method,
        "rpc.response.status_code": code,
        "cove.request_id": call.correlation_id,
    }
    told = {
        "error.type": "" if code == "OK" else reason or code,
        "cove.principal": call.identity.principal,
        "cove.tenant": call.identity.tenant,
        "cove.uid": call.uid,
        "cove.node": call.node,
    }
    attributes.update((key, value) for key, value in told.items() if value)
    ended = int(when * 1e9)
    return Span(
        method,
        Kind.SERVER,
        call.traceparent,
        call.parent,
        ended - int(seconds * 1e9),
        ended,
        attributes,
        (reason or code) if code in _FAULTS else "",
    )


def _tell(when: float, call: Call, code: str, reason: str, seconds: float, *, more: bool) -> None:
    """The access log: one line a call, without anything of its contents."""
    fields: dict[str, object] = {
        "method": call.method,
        "code": code,
        "ms": round(seconds * 1000, 2),
    }
    if reason:
        fields["reason"] = reason
    if call.identity.principal:
        fields["principal"] = call.identity.principal
    if call.identity.tenant:
        fields["tenant"] = call.identity.tenant
    record = logging.LogRecord(_log.name, logging.INFO, __file__, 0, "call", (), None)
    record.created, record.msecs = when, when % 1 * 1000
    vars(record).update(fields=fields, call=call, more=more)
    _log.handle(record)
