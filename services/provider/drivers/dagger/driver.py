"""Environments on a Dagger engine: records are here; where they are now, the stand-in keeps."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

from agent.handle import Handle
from servicekit import calls
from servicekit.disk import DiskGuard
from servicekit.errors import InvalidArgument, Unavailable
from services.provider.capabilities import Capabilities, Isolation, Method, Mounting
from services.provider.driver import (
    Found,
    Limits,
    Network,
    Observation,
    Provisioned,
    Spec,
    Stopping,
    Usage,
    Worktree,
)
from services.provider.drivers import deciding
from services.provider.drivers.dagger.abilities import CAN, SAY, check, missing
from services.provider.drivers.dagger.beside import Beside
from services.provider.drivers.dagger.standins import Standins
from services.provider.drivers.making import BUILD
from services.provider.drivers.places import Places as WorktreePlaces
from services.provider.drivers.records import Record, Records
from services.provider.drivers.tenants import Disk as TenantDisk
from services.provider.drivers.tenants import Places
from services.provider.errors import (
    EnvironmentStopped,
    HandleInvalid,
    NotProvisioned,
    ProvisionedDifferently,
)


class DaggerDriver:
    """What it keeps is in `records`; where environments are now, the stand-in keeps."""

    name: Final = "dagger"
    mounts: Final = frozenset({Mounting.PLAIN})

    def __init__(
        self,
        state: Path,
        runtime: Path,
        disk: DiskGuard,
        *,
        idle_timeout: timedelta,
        tenants: Places,
        network: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._worktrees = WorktreePlaces(state)
        self._standin = Standins(runtime / self.name)
        self._disk = disk
        self._idle_timeout = idle_timeout
        self._network = network
        self._now = now
        self._records = Records(state / "provider" / "environments")
        self._beside = Beside(runtime / "launcher", self._worktrees, self._records, idle_timeout)
        self._tenants = tenants
        tenants.share(self.name, self._bound)
        self._used = TenantDisk(state, self._records)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def capabilities(self) -> Capabilities:
        node = (await self._beside.facts()).node
        try:
            facts = await self._standin.ask("facts", 90.0)
            remedy = f"{facts['problem']}: {facts['remedy']}" if facts["problem"] else ""
        except Unavailable as error:
            remedy = f"{error.message}: start it, as `cove up` does with COVE_DRIVERS=dagger"
        if not (remedy or self._network):
            remedy = f"what commands reach is not said: {SAY}"
        return Capabilities(
            driver=self.name,
            node=node,
            isolation=Isolation.NONE if remedy else Isolation.ROOT,
            memory=Method.NONE,
            processes=Method.NONE,
            cpu=Method.NONE,
            idle_timeout=self._idle_timeout,
            can=CAN,
            mounts=self.mounts,
            remedy=remedy,
        )

    async def validate(self, spec: Spec) -> Spec:
        check(spec, self._network)
        return replace(spec, driver=self.name, limits=Limits())

    async def provision(
        self, uid: str, tenant: str, spec: Spec, worktree: Worktree, source: str = ""
    ) -> Provisioned:
        if worktree.upper:
            raise InvalidArgument("mount.mode", "an engine takes one directory")
        facts = await self._beside.facts()
        wanted = Record(
            uid=uid,
            tenant=tenant,
            spec=await self.validate(spec),
            worktree=worktree,
            provision_time=self._now(),
        )
        placed = self._worktrees.place(uid, worktree, facts)
        async with self._lock(uid):
            existing = self._records.read(uid)
            if existing and not existing.same(wanted):
                raise ProvisionedDifferently("the uid has another environment", uid=uid)
            if not existing:
                self._disk.check()
            made = await self._standin.ask(
                "create",
                BUILD,
                uid=uid,
                tenant=tenant,
                image=spec.image,
                setup=list(spec.setup),
                tree=placed.tree,
                rebuild=spec.rebuild,
                source=source,
            )
            if not existing:
                await asyncio.to_thread(self._records.write, wanted)
        return Provisioned(
            handle=str(made["handle"]).encode(),
            generation=int(made["generation"]),
            driver=self.name,
            node=facts.node,
        )

    async def activate(self, handle: bytes) -> bool:
        uid = self._uid(handle)
        async with self._lock(uid):
            if (record := self._record(uid)).stopped:
                raise EnvironmentStopped("the environment is stopped", uid=uid)
            await self._standin.ask("check", BUILD, uid=uid, handle=handle.decode())
            limit = calls.current().limits.active_environments
            async with self._tenants.place(self.name, record, limit, self._end_one):
                await self._beside.start(record)
                idle = self._idle_timeout.total_seconds()
                started = bool((await self._standin.ask("bind", uid=uid, idle=idle))["started"])
                if started:  # What was still leaving may have ended the one that is beside, too.
                    await self._beside.start(record)
                return started

    async def inspect(self, handle: bytes) -> Observation:
        uid = self._uid(handle)
        record, row = self._record(uid), await self._standin.ask("look", uid=uid)
        return self._observe(uid, record, row, active=uid in await self._bound())

    async def suspend(self, handle: bytes, duration: timedelta, *, end_idle: bool) -> bool:  # noqa: ARG002
        uid = self._uid(handle)
        async with self._lock(uid):
            self._record(uid)
            if uid not in await self._bound():
                return False
            if end_idle and await self._ended(uid):
                return False
        raise missing("a command on an engine cannot be held still", "freeze")

    async def resume(self, handle: bytes) -> bool:
        self._record(self._uid(handle))
        return False

    async def stop(
        self, handle: bytes, revision: int, *, force: bool, quiet: timedelta
    ) -> Stopping:
        uid = self._uid(handle)
        async with self._lock(uid):
            record = self._record(uid)

            async def end() -> tuple[bool, timedelta]:
                left = await self._standin.ask(
                    "leave", uid=uid, force=force, quiet=quiet.total_seconds()
                )
                if left["ended"]:
                    await self._beside.end(uid)
                return bool(left["ended"]), timedelta(seconds=left["quiet"])

            return await deciding.stop(self._records, record, revision, end)

    async def reopen(self, handle: bytes, revision: int) -> bool:
        uid = self._uid(handle)
        async with self._lock(uid):
            return await deciding.reopen(self._records, self._record(uid), revision)

    async def update_network(
        self, handle: bytes, network: Network, revision: int
    ) -> tuple[bool, int]:
        uid = self._uid(handle)
        async with self._lock(uid):
            record = self._record(uid)
            if revision < record.network_revision:
                return True, 0
            if network.rules:
                raise missing("an engine does not keep to a list of hosts", "allow_list")
            await asyncio.to_thread(self._records.write, replace(record, network_revision=revision))
            return False, 0

    def has(self, uid: str) -> bool:
        record = self._records.read(uid)
        return record is not None and record.spec.driver == self.name

    async def release(self, uid: str) -> bool:
        async with self._lock(uid):
            record = self._records.read(uid)
            if record and record.spec.driver != self.name:
                return False
            await self._standin.ask("unbind", uid=uid)
            found = bool((await self._standin.ask("remove", uid=uid))["found"])
            if record is None and not found:
                return False  # Whatever is there may be another's.
            await self._beside.end(uid)
            return await asyncio.to_thread(self._records.remove, uid) or found

    async def usage(self, tenant: str) -> Usage:
        found = await self._used.measure(tenant)
        return Usage(
            active=len(await self._bound(tenant)), disk_bytes=found.bytes, disk_time=found.time
        )

    async def admit(self, tenant: str, disk_bytes: int) -> None:
        if disk_bytes:
            await self._used.admit(tenant, disk_bytes)

    async def list(self) -> tuple[Observation, ...]:
        rows = {each["uid"]: each for each in await self._standin.listing()}
        bound = await self._bound()

        def observed() -> tuple[Observation, ...]:
            return tuple(
                self._observe(uid, self._records.read(uid), rows.get(uid, {}), active=uid in bound)
                for uid in sorted({*filter(self.has, self._records.uids()), *rows})
            )

        return await asyncio.to_thread(observed)

    def _observe(
        self, uid: str, record: Record | None, row: dict[str, Any], *, active: bool
    ) -> Observation:
        if record is None or not row.get("whole"):
            return Observation(uid=uid, state=Found.BROKEN, driver=self.name)
        return Observation(
            uid=uid,
            state=Found.ACTIVE if active else Found.DORMANT,
            driver=self.name,
            tenant=record.tenant,
            provision_time=record.provision_time,
            handle=str(row["handle"]).encode(),
            generation=int(row["generation"]),
        )

    def _uid(self, handle: bytes) -> str:
        try:
            found = Handle.decode(handle)
        except ValueError as error:
            raise HandleInvalid("handle", str(error)) from error
        if found.driver != self.name or not found.locator:
            raise HandleInvalid("handle", "of another driver")
        return found.uid

    def _record(self, uid: str) -> Record:
        record = self._records.read(uid)
        if record is None or record.spec.driver != self.name:
            raise NotProvisioned("nothing is provisioned for it", uid=uid)
        return record

    async def _bound(self, tenant: str = "") -> set[str]:
        """Those that are active, of a tenant or all."""
        uids = set((await self._standin.ask("bound"))["uids"])
        if not tenant:
            return uids
        records = [self._records.read(uid) for uid in uids]
        return {each.uid for each in records if each and each.tenant == tenant}

    async def _end_one(self, uids: Collection[str]) -> bool:
        # Whoever is at another one may wait for us.
        for uid in (each for each in uids if not self._lock(each).locked()):
            async with self._lock(uid):
                if await self._ended(uid):
                    return True
        return False

    async def _ended(self, uid: str) -> bool:
        if not (await self._standin.ask("leave", uid=uid))["ended"]:
            return False
        await self._beside.end(uid)
        return True

    def _lock(self, uid: str) -> asyncio.Lock:
        return self._locks.setdefault(uid, asyncio.Lock())
