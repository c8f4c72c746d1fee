"""The driver `dagger`: environments on a Dagger engine, by its stand-in (`engines.dagger`).

Nothing of Dagger is needed here. What can be done is what functional execution can: no process
outlives its command, so there is nothing to signal, to freeze, or to limit.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

from agent.client import AgentClient
from agent.handle import Handle
from agent.launcher_client import LauncherClient, LauncherError, PeerGone, PeerTooOld
from agent.protocol import Facts, Mode, SandboxSpec
from servicekit import calls
from servicekit.disk import DiskGuard
from servicekit.errors import InvalidArgument, Unavailable
from services.provider.driver import (
    Capabilities,
    Capability,
    Found,
    Isolation,
    Limits,
    Method,
    Mounting,
    Network,
    Observation,
    Provisioned,
    Spec,
    Stopping,
    Usage,
    Worktree,
)
from services.provider.drivers.places import Places as WorktreePlaces
from services.provider.drivers.records import Record, Records
from services.provider.drivers.standins import BUILD, Standins
from services.provider.drivers.tenants import Disk as TenantDisk
from services.provider.drivers.tenants import Places
from services.provider.errors import (
    ActivationFailed,
    CapabilityMissing,
    EnvironmentStopped,
    HandleInvalid,
    NotProvisioned,
    ProvisionedDifferently,
)

CAN: Final = frozenset(
    {
        Capability.ATOMIC,
        Capability.SECRETS,
        Capability.IMAGE,
        Capability.SETUP,
        Capability.FORK_STATE,
        Capability.OUTLIVES_SERVICES,
    }
)
_LIMITS: Final = (
    ("memory_bytes", "memory_limit"),
    ("processes", "process_limit"),
    ("milli_cpus", "cpu_limit"),
    ("disk_bytes", "disk_limit"),
    ("open_files", "open_files_limit"),
)
_SAY: Final = (
    "Set COVE_PROVIDER__DAGGER_NETWORK to `none`, where the engine has no way out, or to `open`."
)
_REMEDY: Final = "Leave it out, or name a driver that has it; GetCapabilities lists them."


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
        network: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._worktrees = WorktreePlaces(state)
        self._launcher = runtime / "launcher"
        self._standin = Standins(runtime / self.name)
        self._disk = disk
        self._idle_timeout = idle_timeout
        self._network = network
        self._now = now
        self._records = Records(state / "provider" / "environments")
        self._tenants = Places()
        self._used = TenantDisk(state, self._records)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def capabilities(self) -> Capabilities:
        async with self._connected() as launcher:
            node = (await launcher.facts()).node
        try:
            facts = await self._standin.ask("facts", 90.0)
            remedy = f"{facts['problem']}: {facts['remedy']}" if facts["problem"] else ""
        except Unavailable as error:
            remedy = f"{error.message}: start it, as `cove up` does with COVE_DRIVERS=dagger"
        if not (remedy or self._network):
            remedy = f"what commands reach is not said: {_SAY}"
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
        for field, capability in _LIMITS:
            if getattr(spec.limits, field):
                raise _missing(f"an engine limits no {field}", capability)
        if spec.network.rules:
            raise _missing("an engine does not keep to a list of hosts", "allow_list")
        if not self._network:
            raise CapabilityMissing(
                "an engine does not keep commands from its network", remedy=_SAY, capability="none"
            )
        return replace(spec, driver=self.name, limits=Limits())

    async def provision(
        self, uid: str, tenant: str, spec: Spec, worktree: Worktree, source: str = ""
    ) -> Provisioned:
        if worktree.upper:
            raise InvalidArgument("mount.mode", "an engine takes one directory")
        async with self._connected() as launcher:
            facts = await launcher.facts()
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
            record = self._record(uid)
            if record.stopped:
                raise EnvironmentStopped("the environment is stopped", uid=uid)
            await self._standin.ask("check", BUILD, uid=uid, handle=handle.decode())
            limit = calls.current().limits.active_environments
            async with self._tenants.place(
                record, limit, lambda: self._bound(record.tenant), self._end_one
            ):
                await self._start_files(record)
                idle = self._idle_timeout.total_seconds()
                return bool((await self._standin.ask("bind", uid=uid, idle=idle))["started"])

    async def inspect(self, handle: bytes) -> Observation:
        uid = self._uid(handle)
        record = self._record(uid)
        row = await self._standin.ask("look", uid=uid)
        return self._observe(uid, record, row, active=uid in await self._bound())

    async def suspend(self, handle: bytes, duration: timedelta, *, end_idle: bool) -> bool:  # noqa: ARG002
        uid = self._uid(handle)
        self._record(uid)
        if uid not in await self._bound():
            return False
        if end_idle and await self._ended(uid):
            return False
        raise _missing("a command on an engine cannot be held still", "freeze")

    async def resume(self, handle: bytes) -> bool:
        self._record(self._uid(handle))
        return False

    async def stop(
        self, handle: bytes, revision: int, *, force: bool, quiet: timedelta
    ) -> Stopping:
        uid = self._uid(handle)
        async with self._lock(uid):
            record = self._record(uid)
            again = record.stopped and revision == record.stop_revision
            if revision <= record.stop_revision and not again:
                return Stopping(stopped=record.stopped, superseded=True)
            await self._decide(record, revision, stopped=True)
            try:
                left = await self._standin.ask(
                    "leave", uid=uid, force=force, quiet=quiet.total_seconds()
                )
                if left["ended"]:
                    await self._end_files(uid)
            except BaseException:
                await asyncio.to_thread(self._records.write, record)
                raise
            if not left["ended"]:
                await asyncio.to_thread(self._records.write, replace(record, stopped=False))
            return Stopping(stopped=bool(left["ended"]), quiet=timedelta(seconds=left["quiet"]))

    async def reopen(self, handle: bytes, revision: int) -> bool:
        uid = self._uid(handle)
        async with self._lock(uid):
            record = self._record(uid)
            if revision < record.stop_revision:
                return False
            await self._decide(record, revision, stopped=False)
            return True

    async def update_network(
        self, handle: bytes, network: Network, revision: int
    ) -> tuple[bool, int]:
        uid = self._uid(handle)
        async with self._lock(uid):
            record = self._record(uid)
            if revision < record.network_revision:
                return True, 0
            if network.rules:
                raise _missing("an engine does not keep to a list of hosts", "allow_list")
            record = replace(record, network_revision=revision)
            await asyncio.to_thread(self._records.write, record)
            return False, 0

    async def release(self, uid: str) -> bool:
        async with self._lock(uid):
            record = self._records.read(uid)
            if record and record.spec.driver != self.name:
                return False
            await self._standin.ask("unbind", uid=uid)
            found = bool((await self._standin.ask("remove", uid=uid))["found"])
            if record is None and not found:
                return False  # Whatever is there may be another's.
            await self._end_files(uid)
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
        rows = {each["uid"]: each for each in (await self._standin.ask("list"))["environments"]}
        bound = await self._bound()
        uids = [uid for uid in self._records.uids() if self._has(uid)]
        return tuple(
            self._observe(uid, self._records.read(uid), rows.get(uid, {}), active=uid in bound)
            for uid in sorted({*uids, *rows})
        )

    def _has(self, uid: str) -> bool:
        record = self._records.read(uid)
        return record is not None and record.spec.driver == self.name

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

    async def _decide(self, record: Record, revision: int, *, stopped: bool) -> None:
        decided = replace(record, stopped=stopped, stop_revision=revision)
        await asyncio.to_thread(self._records.write, decided)

    async def _bound(self, tenant: str = "") -> set[str]:
        """Those that are active, of a tenant or all."""
        uids = set((await self._standin.ask("bound"))["uids"])
        if not tenant:
            return uids
        records = [self._records.read(uid) for uid in uids]
        return {each.uid for each in records if each and each.tenant == tenant}

    async def _end_one(self, uids: Collection[str]) -> bool:
        for uid in uids:
            if await self._ended(uid):
                return True
        return False

    async def _ended(self, uid: str) -> bool:
        if not (await self._standin.ask("leave", uid=uid))["ended"]:
            return False
        await self._end_files(uid)
        return True

    async def _start_files(self, record: Record) -> None:
        """Start the sandbox in whose files requests about files look. No command runs in it."""
        async with self._connected() as launcher:
            facts = await launcher.facts()
            owner = facts.sandbox_uid if facts.mode is Mode.ROOT else None
            self._records.make_folders(record.uid, owner)
            status = await launcher.start(self._sandbox(record, facts))
            try:
                async with AgentClient.connect(Path(status.socket), facts.sandbox_uid):
                    return
            except (PeerGone, PeerTooOld) as error:
                said = await launcher.last_words(record.uid) or str(error)
                raise ActivationFailed("the sandbox did not start", cause=said[:500]) from error

    def _sandbox(self, record: Record, facts: Facts) -> SandboxSpec:
        folder = self._records.folder(record.uid)
        placed = self._worktrees.place(record.uid, record.worktree, facts)
        return SandboxSpec(
            uid=record.uid,
            worktree=placed.tree,
            lock=placed.lock,
            home=str(folder / "home"),
            tmp=str(folder / "tmp"),
            mounts=placed.mounts,
            beside=True,
        )

    async def _end_files(self, uid: str) -> None:
        async with self._connected() as launcher:
            await launcher.kill(uid)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[LauncherClient]:
        try:
            async with LauncherClient.connect(self._launcher) as launcher:
                yield launcher
        except (PeerGone, PeerTooOld) as error:
            raise Unavailable("the launcher is away", service="launcher") from error
        except LauncherError as error:
            raise Unavailable("the launcher failed", service="launcher") from error

    def _lock(self, uid: str) -> asyncio.Lock:
        return self._locks.setdefault(uid, asyncio.Lock())


def _missing(message: str, capability: str) -> CapabilityMissing:
    return CapabilityMissing(message, remedy=_REMEDY, capability=capability)
