"""What each tenant has on this node: sandboxes that run, and bytes on the disk."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from servicekit.quota import QuotaExceeded
from servicekit.taken import taken
from services.provider.drivers.records import Record, Records

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
    """Sandboxes that run, or are being started. A bound is exact: all are started here."""

    def __init__(self) -> None:
        self._starting: set[tuple[str, str]] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def place(
        self,
        record: Record,
        limit: int,
        running: Callable[[], Awaitable[Collection[str]]],
        end_idle: Callable[[Collection[str]], Awaitable[bool]],
    ) -> AsyncIterator[None]:
        """Count one that is being started in the block. A limit of 0 is none.

        `running` tells those of the tenant that run; `end_idle` ends one of those given in
        which nothing runs, and says whether there was one. Raises `QuotaExceeded`.
        """
        tenant, uid = record.tenant, record.uid
        if limit:
            async with self._locks.setdefault(tenant, asyncio.Lock()):
                await self._admit(tenant, uid, limit, running, end_idle)
                self._starting.add((tenant, uid))
        self._starting.add((tenant, uid))  # Also where there is no limit yet.
        try:
            yield
        finally:
            self._starting.discard((tenant, uid))

    async def _admit(
        self,
        tenant: str,
        uid: str,
        limit: int,
        running: Callable[[], Awaitable[Collection[str]]],
        end_idle: Callable[[Collection[str]], Awaitable[bool]],
    ) -> None:
        # One that is started meanwhile is in one of the three.
        active = self._of(tenant).union(await running(), self._of(tenant))
        if uid in active or len(active) < limit:
            return
        idle = active - self._of(tenant)
        if len(active) > limit or not idle or not await end_idle(sorted(idle)):
            raise QuotaExceeded(
                tenant, "active_environments", limit, len(active), retry_after=_RETRY
            )

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
