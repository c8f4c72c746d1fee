"""What the registry tells of its store."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from cove.registry.v1.registry_pb2 import Environment
from servicekit.metrics import BUCKETS, gauge
from services.registry.store import Store

_log = logging.getLogger(__name__)

_EVERY: Final = 15.0
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_PREFIX: Final = "STATE_"


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._writes = Counter(
            "cove_registry_writes", "Writes that were committed.", registry=registry
        )
        self._sizes = Histogram(
            "cove_registry_commit_writes",
            "Writes that shared a commit.",
            registry=registry,
            buckets=_SIZES,
        )
        self._seconds = Histogram(
            "cove_registry_commit_seconds",
            "How long commits took.",
            registry=registry,
            buckets=BUCKETS,
        )
        self._failed = Counter(
            "cove_registry_commits_failed", "Commits that failed as a whole.", registry=registry
        )
        self._environments = Gauge(
            "cove_environments", "Environments by state.", ["state"], registry=registry
        )

    def committed(self, writes: int, seconds: float, *, failed: bool) -> None:
        """One commit ended."""
        self._seconds.observe(seconds)
        if failed:
            self._failed.inc()
            return
        self._writes.inc(writes)
        self._sizes.observe(writes)

    @asynccontextmanager
    async def of(self, store: Store) -> AsyncIterator[None]:
        """Count what is in the store while the block runs."""
        gauge(
            self._registry,
            "cove_registry_queue",
            "Writes that wait for a commit.",
            lambda: store.waiting,
        )
        counting = asyncio.create_task(self._count(store))
        try:
            yield
        finally:
            counting.cancel()
            await asyncio.gather(counting, return_exceptions=True)

    async def _count(self, store: Store) -> None:
        while True:
            try:
                self._tell(await store.census())
            except Exception as error:  # It only informs, and whoever needs the store is told.
                _log.debug("cannot count environments: %s", error)
            await asyncio.sleep(_EVERY)

    def _tell(self, census: Mapping[int, int]) -> None:
        for name, number in Environment.State.items():
            if number:
                label = name.removeprefix(_PREFIX)
                self._environments.labels(label).set(census.get(number, 0))
