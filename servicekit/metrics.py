"""What Prometheus is told of every call."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BUCKETS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    120,
    600,
)


class Metrics:
    """The counters of one server, in a registry of its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "cove_calls", "Calls that ended, by code.", ["method", "code"], registry=registry
        )
        self._seconds = Histogram(
            "cove_call_seconds",
            "How long calls took.",
            ["method"],
            registry=registry,
            buckets=_BUCKETS,
        )
        self._open = Gauge("cove_calls_open", "Calls going on.", ["method"], registry=registry)

    def of(self, method: str) -> "MethodMetrics":
        return MethodMetrics(
            method, self._calls, self._seconds.labels(method), self._open.labels(method)
        )


class MethodMetrics:
    """The counters of one RPC, looked up once."""

    def __init__(self, method: str, calls: Counter, seconds: Histogram, going: Gauge) -> None:
        self._method = method
        self._calls = calls
        self._by_code: dict[str, Counter] = {}
        self._seconds = seconds
        self._open = going

    def began(self) -> None:
        self._open.inc()

    def ended(self, code: str, seconds: float) -> None:
        self._open.dec()
        self._seconds.observe(seconds)
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._calls.labels(self._method, code)
        counter.inc()
