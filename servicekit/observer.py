"""Counts every call that ended, and logs them in batches.

Between two calls gRPC's threads fight over the interpreter, so that a line
written there costs several times what it costs in a batch: lines come at most
50 ms late. What is counted are plain numbers, which are put into words when they are asked for.
"""

import asyncio
import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from servicekit.calls import Call
from servicekit.logs import Alike, Told
from servicekit.metrics import BUCKETS
from servicekit.spans import Kind, Span

_log = logging.getLogger("servicekit.calls")

_BATCH_SECONDS: Final = 0.05
_BOUNDS: Final = (*map(str, map(float, BUCKETS)), "+Inf")
_FAULTS: Final = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)
"""With these a server has failed, by the semantic conventions; with others its caller has."""


class Observer(Collector):
    """Of one server, with metrics in the registry given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls: dict[str, Calls] = {}
        self._ended: list[tuple[float, Call, str, str, float]] = []
        self._timer: asyncio.TimerHandle | None = None
        registry.register(self)

    def of(self, method: str) -> "Calls":
        calls = self._calls[method] = Calls(self.ended)
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
            if call.recorder is not None:
                call.recorder.record(_span(when, call, code, reason, seconds))
            if logged:
                _tell(when, call, code, reason, seconds, more=left < 0)

    def collect(self) -> Iterator[Metric]:
        """What Prometheus is told."""
        ended = CounterMetricFamily(
            "cove_calls",
            "Calls that ended, by code and reason.",
            labels=["method", "code", "reason"],
        )
        took = HistogramMetricFamily("cove_call_seconds", "How long calls took.", labels=["method"])
        going_on = GaugeMetricFamily("cove_calls_open", "Calls going on.", labels=["method"])
        for method, calls in self._calls.items():
            for (code, reason), count in calls.by_code.items():
                ended.add_metric([method, code, reason], count)
            buckets = list(zip(_BOUNDS, map(float, accumulate(calls.buckets)), strict=True))
            took.add_metric([method], buckets, calls.seconds)
            going_on.add_metric([method], calls.open)
        yield from (ended, took, going_on)


class Calls:
    """Those of one RPC."""

    def __init__(self, ended: Callable[[Call, str, str, float], None]) -> None:
        self.open = 0
        self.by_code: dict[tuple[str, str], int] = {}
        """How many ended with a code and a reason,"""
        self.buckets = [0] * len(_BOUNDS)
        """in how many seconds, by the next bound,"""
        self.seconds = 0.0
        """and in how many all of them."""
        self._ended = ended

    def began(self) -> None:
        self.open += 1

    def ended(self, call: Call, code: str, reason: str, seconds: float) -> None:
        self.open -= 1
        self.by_code[code, reason] = self.by_code.get((code, reason), 0) + 1
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds
        self._ended(call, code, reason, seconds)


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
    who = call.identity
    record = Told(when)
    record.call, record.more = call, more
    record.alike = _alike(call.method, code, reason, who.principal, who.tenant)
    record.milliseconds = round(seconds * 1000, 2)
    _log.handle(record)


@lru_cache(maxsize=4096)
def _alike(method: str, code: str, reason: str, principal: str, tenant: str) -> Alike:
    told = {"reason": reason, "principal": principal, "tenant": tenant}
    return Alike.of({"method": method, "code": code} | {k: v for k, v in told.items() if v})
