"""What the executor tells of executions."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from servicekit.metrics import BUCKETS
from services.executor.ending import End, Reason


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._started = Counter(
            "cove_executions_started", "Executions that were started.", registry=registry
        )
        self._ended = Counter(
            "cove_executions_ended",
            "Executions that ended, by what ended them.",
            ["reason"],
            registry=registry,
        )
        for reason in Reason:
            self._ended.labels(reason.value)
        self._seconds = Histogram(
            "cove_execution_seconds",
            "How long executions ran.",
            registry=registry,
            buckets=BUCKETS,
        )
        self._output = Counter(
            "cove_execution_output_bytes",
            "Bytes that executions had written when they ended.",
            registry=registry,
        )

    def started(self) -> None:
        self._started.inc()

    def ended(self, end: End) -> None:
        self._ended.labels(end.reason.value).inc()
        self._output.inc(end.output_bytes)
        if end.start_ns:
            self._seconds.observe(max(0, end.end_ns - end.start_ns) / 1e9)
