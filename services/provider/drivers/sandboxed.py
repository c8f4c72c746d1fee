"""What drivers have in common whose environments are sandboxes with an agent in each."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from agent.handle import valid_uid
from agent.owner import user_of
from agent.protocol import Facts, Mode, SandboxSpec
from servicekit import calls, tracing
from servicekit.disk import DiskGuard
from servicekit.errors import ServiceError
from servicekit.queueing import PROCESSORS, Queue
from services.provider.capabilities import Capabilities, Capability, Mounting
from services.provider.driver import (
    Network,
    Observation,
    Provisioned,
    Spec,
    Stopping,
    Usage,
    Worktree,
)
from services.provider.drivers import abilities, deciding, shaping, stopping
from services.provider.drivers.making import Maker, OnStart, Sandboxes, unheard
from services.provider.drivers.networks import Networks
from services.provider.drivers.own import GENERATION, Own
from services.provider.drivers.places import Places as WorktreePlaces
from services.provider.drivers.records import Record, Records, completed
from services.provider.drivers.seeing import Seeing
from services.provider.drivers.tenants import Disk as TenantDisk
from services.provider.drivers.tenants import Places
from services.provider.drivers.ways_out import WaysOut
from services.provider.errors import (
    CapabilityMissing,
    EnvironmentStopped,
    ProvisionedDifferently,
)

_STARTS: Final = 2 * PROCESSORS
"""Sandboxes that are started at once: more would only make all of them late."""
_WAITING: Final = 512


class SandboxDriver:
    """Environments on this node. All state is in `records` and at the maker."""

    mounts: Final = frozenset(Mounting)

    def __init__(
        self,
        maker: Maker,
        state: Path,
        disk: DiskGuard,
        *,
        binds: tuple[Path, ...],
        idle_timeout: timedelta,
        processes: int,
        ways_out: WaysOut,
        tenants: Places,
        on_start: OnStart = unheard,
        unclaimed: bool = True,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`unclaimed`: whether what has no record, and no sandbox, counts as ours."""
        self._places = WorktreePlaces(state)
        self._maker = maker
        self.name: Final = maker.name
        self._disk = disk
        self._binds = binds
        self._idle_timeout = idle_timeout
        self._processes = processes
        self._ways_out = ways_out
        self._on_start = on_start
        self._networks = Networks(ways_out)
        self._now = now
        self._records = Records(state / "provider" / "environments")
        self._own = Own(self.name, self._records)
        self._seeing = Seeing(maker, self._records, self._own, unclaimed=unclaimed)
        self._tenants = tenants
        tenants.share(self.name, self._seeing.running)
        self._starts = Queue("starts", _STARTS, _WAITING)
        self._used = TenantDisk(state, self._records)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def capabilities(self) -> Capabilities:
        facts, remedy = await self._maker.told()
        able = facts.way_out and await self._ways_out.available()
        return abilities.of(
            facts,
            driver=self.name,
            can=self._maker.can.union({Capability.ALLOW_LIST} if able else ()),
            mounts=self.mounts,
            idle_timeout=self._idle_timeout,
            remedy=remedy,
        )

    async def validate(self, spec: Spec) -> Spec:
        return await self._checked(spec, await self._maker.probed())

    async def provision(
        self,
        uid: str,
        tenant: str,
        spec: Spec,
        worktree: Worktree,
        source: str = "",  # noqa: ARG002 - a fork is its worktree.
    ) -> Provisioned:
        facts = await self._maker.probed()
        wanted = Record(
            uid=uid,
            tenant=tenant,
            spec=await self._checked(spec, facts),
            worktree=worktree,
            provision_time=self._now(),
        )
        self._places.place(uid, worktree, facts)
        async with self._lock(uid):
            existing = self._records.read(uid)
            if existing and not existing.same(wanted):
                raise ProvisionedDifferently("the uid has another environment", uid=uid)
            if not existing:
                self._disk.check()
                wanted = await self._maker.chosen(wanted)
                await asyncio.to_thread(self._records.write, wanted)
        return Provisioned(
            handle=self._own.handle(uid, facts.node),
            generation=GENERATION,
            driver=self.name,
            node=facts.node,
        )

    async def activate(self, handle: bytes) -> bool:
        facts = await self._maker.probed()
        uid = self._own.uid(handle, facts)
        async with self._lock(uid):
            record = self._own.record(uid)
            if record.stopped:
                raise EnvironmentStopped("the environment is stopped", uid=uid)
            spec = self._sandbox(record, facts)
            owner = user_of(spec.workspace) if facts.mode is Mode.ROOT else None
            self._records.make_folders(uid, owner)
            limit = calls.current().limits.active_environments
            # Who waits for a place holds no connection: the launcher serves not many at once.
            async with (
                self._tenants.place(
                    self.name, record, limit, partial(self._seeing.end_one, facts.sandbox_uid)
                ),
                self._starts.place(),
                self._maker.connected() as launcher,
            ):
                began = time.monotonic()
                with tracing.span("sandbox start", uid=uid, driver=self.name):
                    started = await self._maker.start(launcher, record, spec)
            if started:
                self._on_start(self.name, time.monotonic() - began)
            if record.spec.network.rules:
                async with self._maker.connected() as launcher:
                    await self._networks.restored(record, launcher, facts)
            return started

    async def inspect(self, handle: bytes) -> Observation:
        async with self._launcher_of(handle) as (launcher, uid, facts):
            record = self._records.read(uid)
            return self._own.observe(uid, record, await launcher.inspect(uid), facts.node)

    async def suspend(self, handle: bytes, duration: timedelta, *, end_idle: bool) -> bool:
        async with self._launcher_of(handle) as (launcher, uid, facts):
            if end_idle and await stopping.ended(launcher, uid, facts.sandbox_uid):
                return False
            if not facts.freeze:
                raise CapabilityMissing(
                    "the launcher is older than this provider: it cannot freeze",
                    remedy="End the launcher when nothing runs; a new one takes its place.",
                    capability="freeze",
                )
            return await launcher.freeze(uid, duration.total_seconds())

    async def resume(self, handle: bytes) -> bool:
        async with self._launcher_of(handle) as (launcher, uid, facts):
            return bool(facts.freeze) and await launcher.thaw(uid)

    async def stop(
        self, handle: bytes, revision: int, *, force: bool, quiet: timedelta
    ) -> Stopping:
        async with self._launcher_of(handle) as (launcher, uid, facts), self._lock(uid):

            async def end() -> tuple[bool, timedelta]:
                if not force:
                    return await stopping.end(launcher, uid, facts.sandbox_uid, quiet)
                await stopping.kill(launcher, uid, facts.sandbox_uid)
                return True, timedelta(0)

            return await deciding.stop(self._records, self._own.record(uid), revision, end)

    async def reopen(self, handle: bytes, revision: int) -> bool:
        async with self._launcher_of(handle) as (_, uid, _), self._lock(uid):
            return await deciding.reopen(self._records, self._own.record(uid), revision)

    async def update_network(
        self, handle: bytes, network: Network, revision: int
    ) -> tuple[bool, int]:
        async with self._launcher_of(handle) as (launcher, uid, facts), self._lock(uid):
            record = self._own.record(uid)
            if revision < record.network_revision:
                return True, 0
            self._networks.form(network)
            spec = replace(record.spec, network=network)
            record = replace(record, spec=spec, network_revision=revision)
            await asyncio.to_thread(self._records.write, record)
            try:
                return False, await self._networks.let(record, launcher, facts)
            except ServiceError:
                self._ways_out.later()
                raise

    async def restore_ways_out(self) -> bool:
        """Give every sandbox that runs the way out that it should have; whether all have it."""
        done = []
        async with self._maker.connected() as launcher:
            facts = await launcher.facts()
            running = {each.uid for each in await launcher.list()}
            # Those of setups that run have other names, and end by themselves.
            ways = filter(valid_uid, await self._ways_out.open_ways())
            for uid in running.union(ways):
                async with self._lock(uid):
                    record = self._records.read(uid)
                    if self._own.is_anothers(record):
                        continue
                    if record and record.spec.network.rules and uid in running:
                        done.append(await self._networks.restored(record, launcher, facts))
                    else:
                        await self._ways_out.shut(uid)
        return all(done)

    def has(self, uid: str) -> bool:
        record = self._records.read(uid)
        return record is not None and self._own.is_ours(record)

    async def release(self, uid: str) -> bool:
        async with self._lock(uid):
            if self._own.is_anothers(self._records.read(uid)):
                return False
            async with self._maker.connected() as launcher:
                killed = await launcher.kill(uid)
            removed = await asyncio.to_thread(self._records.remove, uid)
        return killed or removed

    async def list(self) -> tuple[Observation, ...]:
        return await self._seeing.everything()

    async def usage(self, tenant: str) -> Usage:
        active = await self._seeing.running(tenant)
        found = await self._used.measure(tenant)
        return Usage(active=len(active), disk_bytes=found.bytes, disk_time=found.time)

    async def admit(self, tenant: str, disk_bytes: int) -> None:
        if disk_bytes:
            await self._used.admit(tenant, disk_bytes)

    async def _checked(self, spec: Spec, facts: Facts) -> Spec:
        """With defaults. Raises InvalidArgument, CapabilityMissing."""
        await self._maker.check(spec)
        await self._networks.check(spec.network, facts)
        shaping.check_limits(spec.limits, facts)
        return completed(spec, self.name, self._processes)

    def _sandbox(self, record: Record, facts: Facts) -> SandboxSpec:
        folder = self._records.folder(record.uid)
        placed = self._places.place(record.uid, record.worktree, facts)
        idle = self._idle_timeout.total_seconds()
        return shaping.sandbox(record, folder, placed, self._binds, idle)

    @asynccontextmanager
    async def _launcher_of(self, handle: bytes) -> AsyncIterator[tuple[Sandboxes, str, Facts]]:
        """The launcher that has it, the uid, and what that launcher can do."""
        async with self._maker.connected() as launcher:
            facts = await launcher.facts()
            uid = self._own.uid(handle, facts)
            self._own.check(uid)
            yield launcher, uid, facts

    def _lock(self, uid: str) -> asyncio.Lock:
        return self._locks.setdefault(uid, asyncio.Lock())
