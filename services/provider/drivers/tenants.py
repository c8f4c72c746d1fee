"""What each tenant has on this node: sandboxes that run, and bytes on the disk."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple, TypeAlias
from weakref import WeakValueDictionary

from servicekit.errors import Unavailable
from servicekit.quota import QuotaExceeded
from servicekit.taken import taken
from services.provider.drivers.records import Record, Records

Running: TypeAlias = Callable[[str], Awaitable[Collection[str]]]
"""Tells the uids of a tenant that have a sandbox."""

_PATIENCE: Final = 5.0
"""Seconds in which another driver must have told what it has."""
_RETRY: Final = timedelta(seconds=5)
_FRESH: Final = 60.0
"""Seconds for which a measure of the disk is gone by; longer where it takes long."""
_SOON: Final = 5.0
"""The same while it says that there is no room: some may have been made."""
_REST: Final = 10.0
"""By how much longer a measure is gone by than it took."""


class Measure(NamedTuple):
    """Bytes that a tenant had on the disk."""

    bytes: int
    time: datetime
    began: float
    took: float

    def old(self, limit: float) -> bool:
        return time.monotonic() > self.began + max(limit, _REST * self.took)


class Places:
    """Sandboxes that run, or are being started, of all drivers of a node. A bound is exact: all
    are started here."""

    def __init__(self) -> None:
        self._starting: set[tuple[str, str]] = set()
        self._running: dict[str, Running] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def share(self, driver: str, running: Running) -> None:
        """From now on count those of a driver, too; `running` tells those of a tenant."""
        self._running[driver] = running

    @asynccontextmanager
    async def place(
        self,
        driver: str,
        record: Record,
        limit: int,
        end_idle: Callable[[Collection[str]], Awaitable[bool]],
    ) -> AsyncIterator[None]:
        """Count one that is being started in the block. A limit of 0 is none.

        `end_idle` ends one of those of the driver that are given in which nothing runs, and says
        whether there was one. Raises `QuotaExceeded`.
        """
        tenant, uid = record.tenant, record.uid
        if limit:
            async with self._locks.setdefault(tenant, asyncio.Lock()):
                await self._admit(driver, tenant, uid, limit, end_idle)
                self._starting.add((tenant, uid))
        self._starting.add((tenant, uid))  # Also where there is no limit yet.
        try:
            yield
        finally:
            self._starting.discard((tenant, uid))

    async def _admit(
        self,
        driver: str,
        tenant: str,
        uid: str,
        limit: int,
        end_idle: Callable[[Collection[str]], Awaitable[bool]],
    ) -> None:
        # One that is started meanwhile is in one of the three.
        before = self._of(tenant)
        own, others = await asyncio.gather(
            self._running[driver](tenant), self._of_others(driver, tenant)
        )
        active = before.union(own, others, self._of(tenant))
        if uid in active or len(active) < limit:
            return
        idle = set(own) - self._of(tenant)
        if len(active) > limit or not idle or not await end_idle(sorted(idle)):
            raise QuotaExceeded(
                tenant, "active_environments", limit, len(active), retry_after=_RETRY
            )

    async def _of_others(self, driver: str, tenant: str) -> set[str]:
        counts = [
            self._told(each, tenant) for name, each in self._running.items() if name != driver
        ]
        return set[str]().union(*await asyncio.gather(*counts))

    @staticmethod
    async def _told(running: Running, tenant: str) -> Collection[str]:
        """What a driver has that does not answer is left out: it can start none either."""
        try:
            async with asyncio.timeout(_PATIENCE):
                return await running(tenant)
        except (Unavailable, TimeoutError):
            return ()

    def _of(self, tenant: str) -> set[str]:
        return {uid for of, uid in self._starting if of == tenant}


class Disk:
    """Bytes of each tenant, measured when somebody asks, and not too often."""

    def __init__(self, state: Path, records: Records) -> None:
        self._state = state
        self._records = records
        self._measures: dict[str, Measure] = {}
        self._measuring: dict[str, asyncio.Task[Measure]] = {}

    async def measure(self, tenant: str, limit: int = 0) -> Measure:
        """What it had last. A first measure is waited for, and so is one after it had no room."""
        known = self._measures.get(tenant)
        if known and limit and known.bytes >= limit and known.old(_SOON):
            return await asyncio.shield(self._begin(tenant))
        if known is None:
            return await asyncio.shield(self._begin(tenant))
        if known.old(_FRESH):
            self._begin(tenant)
        return known

    async def admit(self, tenant: str, limit: int) -> Measure:
        """Raises `QuotaExceeded` when it had as much as `limit`."""
        found = await self.measure(tenant, limit)
        if limit and found.bytes >= limit:
            raise QuotaExceeded(tenant, "disk_bytes", limit, found.bytes, retry_after=_RETRY)
        return found

    def _begin(self, tenant: str) -> "asyncio.Task[Measure]":
        if (running := self._measuring.get(tenant)) is None:
            running = asyncio.create_task(self._measured(tenant))
            self._measuring[tenant] = running
            running.add_done_callback(lambda _: self._measuring.pop(tenant, None))
        return running

    async def _measured(self, tenant: str) -> Measure:
        began, when = time.monotonic(), datetime.now(UTC)
        total = await asyncio.to_thread(self._walk, tenant)
        found = Measure(total, when, began, time.monotonic() - began)
        self._measures[tenant] = found
        return found

    def _walk(self, tenant: str) -> int:
        records = (self._records.read(uid) for uid in self._records.uids())
        return sum(self._of(each) for each in records if each and each.tenant == tenant)

    def _of(self, record: Record) -> int:
        """Its own files: what differs from the commit, or all where it is no overlay."""
        own = ("provider", "environments", record.uid)
        worktree = PurePosixPath(record.worktree.upper or record.worktree.tree)
        places = (
            worktree.parts,
            (*own, "home"),
            (*own, "tmp"),
            ("executor", "executions", record.uid),
        )
        return sum(taken(self._state, place) for place in places if place)
