"""Metrics that every server has, whatever it does."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from time import perf_counter
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from servicekit import disk, queueing
from servicekit.config import ServerConfig
from servicekit.release import release

BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
    *(0.5, 1, 2.5, 5, 10, 30, 120, 600),
)
"""Seconds: from what a cached read takes to a clone of something large."""


def add_common(registry: CollectorRegistry, config: ServerConfig) -> None:
    """Which build it is, what the process uses, how full the disk is, and who waits in queues."""
    build = Gauge("cove_build_info", "1; which build.", ["service", "version"], registry=registry)
    build.labels(config.service, release()).set(1)
    ProcessCollector(registry=registry)
    gauge(
        registry,
        "cove_disk_used_ratio",
        "Used share of the disk of the state directory, 0 to 1.",
        partial(disk.used, config.state),
    )
    registry.register(_Queues())


class _Queues(Collector):
    def collect(self) -> Iterator[GaugeMetricFamily]:
        told = GaugeMetricFamily("cove_queue_waiting", "Calls that wait.", labels=["queue"])
        for name, waiting in queueing.waiting().items():
            told.add_metric([name], waiting)
        yield told


def gauge(registry: CollectorRegistry, name: str, text: str, value: Callable[[], float]) -> None:
    """A number that is looked up when it is asked for; NaN where that fails."""

    def looked_up() -> float:
        try:
            return value()
        except OSError:
            return math.nan

    Gauge(name, text, registry=registry).set_function(looked_up)


Timed: TypeAlias = Callable[[str], AbstractContextManager[None]]
"""Takes the time of a block, of the kind that is named."""


def untimed(_kind: str) -> AbstractContextManager[None]:
    """Nobody wants to know."""
    return nullcontext()


class Timer:
    """How long things of some kinds took, those that failed too. The kinds are few, and ours."""

    def __init__(self, registry: CollectorRegistry, name: str, text: str, kind: str) -> None:
        self._seconds = Histogram(name, text, [kind], registry=registry, buckets=BUCKETS)

    def observe(self, kind: str, seconds: float) -> None:
        self._seconds.labels(kind).observe(seconds)

    @contextmanager
    def of(self, kind: str) -> Iterator[None]:
        began = perf_counter()
        try:
            yield
        finally:
            self.observe(kind, perf_counter() - began)
