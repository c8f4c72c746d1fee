"""gRPC face of provider: check the request, ask the driver, convert."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

from google.protobuf.duration_pb2 import Duration

from agent.handle import Handle
from cove.provider.v1 import provider_pb2 as pb
from cove.provider.v1.provider_pb2_grpc import ProviderServiceServicer
from servicekit import calls
from servicekit.errors import InvalidArgument, Unavailable
from servicekit.fencing import Fences
from servicekit.ledger import Ledger
from servicekit.paging import PageTokens
from servicekit.status import Context
from services.provider import convert
from services.provider.asking import Asking
from services.provider.capabilities import Capability
from services.provider.driver import Driver, Observation, Spec
from services.provider.errors import CapabilityMissing, DriverUnknown, HandleInvalid

R = TypeVar("R")

_PAGE: Final = 100
_MAX_PAGE: Final = 1000
_PATIENCE: Final = 5.0
"""Seconds that drivers have to count, which are not the default one."""


class ProviderServicer(ProviderServiceServicer):
    def __init__(
        self,
        drivers: Mapping[str, Driver],
        default: str,
        ledger: Ledger,
        fences: Fences,
        tokens: PageTokens,
        count: Callable[[], int],
    ) -> None:
        """`count` tells how many environments there are, of all drivers."""
        self._count = count
        self._drivers = drivers
        self._default = default
        self._asking = Asking(drivers, default)
        self._ledger = ledger
        self._fences = fences
        self._tokens = tokens

    async def GetCapabilities(
        self, request: pb.GetCapabilitiesRequest, context: Context
    ) -> pb.GetCapabilitiesResponse:
        told = await self._asking.capabilities()
        found = {
            name: convert.capabilities(each, sorted(told), self._default)
            for name, each in told.items()
        }
        return pb.GetCapabilitiesResponse(
            capabilities=found[self._default],
            drivers=found.values(),
            environments=await asyncio.to_thread(self._count),
            processors=len(os.sched_getaffinity(0)),
        )

    async def ValidateSpec(
        self, request: pb.ValidateSpecRequest, context: Context
    ) -> pb.ValidateSpecResponse:
        driver = self._named(request.spec.driver)
        await self._need(driver, convert.spec_of(request.spec))
        spec = await driver.validate(convert.spec_of(request.spec))
        return pb.ValidateSpecResponse(
            spec=convert.spec_to_proto(spec), mounts=convert.modes(driver.mounts)
        )

    async def ProvisionEnvironment(
        self, request: pb.ProvisionEnvironmentRequest, context: Context
    ) -> pb.ProvisionEnvironmentResponse:
        async def provision() -> pb.ProvisionEnvironmentResponse:
            return await self._fences.guard(request.uid, lambda: self._provision(request))

        return await self._ledger.once(request, pb.ProvisionEnvironmentResponse, provision)

    async def _provision(
        self, request: pb.ProvisionEnvironmentRequest
    ) -> pb.ProvisionEnvironmentResponse:
        driver, spec = self._named(request.spec.driver), convert.spec_of(request.spec)
        await self._need(driver, spec)
        made = await driver.provision(
            request.uid,
            calls.current().identity.tenant,
            spec,
            convert.worktree_of(request.mount),
            request.source_uid,
        )
        return pb.ProvisionEnvironmentResponse(
            handle=made.handle, generation=made.generation, driver=made.driver, node=made.node
        )

    async def ActivateEnvironment(
        self, request: pb.ActivateEnvironmentRequest, context: Context
    ) -> pb.ActivateEnvironmentResponse:
        driver = self._of(request.handle)
        started = await self._guarded(request.handle, lambda: driver.activate(request.handle))
        return pb.ActivateEnvironmentResponse(started=started)

    async def InspectEnvironment(
        self, request: pb.InspectEnvironmentRequest, context: Context
    ) -> pb.InspectEnvironmentResponse:
        found = await self._of(request.handle).inspect(request.handle)
        return pb.InspectEnvironmentResponse(observation=convert.observation(found))

    async def SuspendEnvironment(
        self, request: pb.SuspendEnvironmentRequest, context: Context
    ) -> pb.SuspendEnvironmentResponse:
        driver, duration = self._of(request.handle), request.duration.ToTimedelta()
        active = await self._guarded(
            request.handle,
            lambda: driver.suspend(request.handle, duration, end_idle=request.end_idle),
        )
        return pb.SuspendEnvironmentResponse(active=active)

    async def ResumeEnvironment(
        self, request: pb.ResumeEnvironmentRequest, context: Context
    ) -> pb.ResumeEnvironmentResponse:
        driver = self._of(request.handle)
        resumed = await self._guarded(request.handle, lambda: driver.resume(request.handle))
        return pb.ResumeEnvironmentResponse(resumed=resumed)

    async def StopEnvironment(
        self, request: pb.StopEnvironmentRequest, context: Context
    ) -> pb.StopEnvironmentResponse:
        driver, quiet_for = self._of(request.handle), request.quiet.ToTimedelta()
        found = await self._guarded(
            request.handle,
            lambda: driver.stop(
                request.handle, request.revision, force=request.force, quiet=quiet_for
            ),
        )
        quiet = Duration()
        quiet.FromTimedelta(found.quiet)
        return pb.StopEnvironmentResponse(
            stopped=found.stopped, quiet=quiet, superseded=found.superseded
        )

    async def ReopenEnvironment(
        self, request: pb.ReopenEnvironmentRequest, context: Context
    ) -> pb.ReopenEnvironmentResponse:
        driver = self._of(request.handle)
        opened = await self._guarded(
            request.handle, lambda: driver.reopen(request.handle, request.revision)
        )
        return pb.ReopenEnvironmentResponse(superseded=not opened)

    async def ReleaseEnvironment(
        self, request: pb.ReleaseEnvironmentRequest, context: Context
    ) -> pb.ReleaseEnvironmentResponse:
        async def release() -> pb.ReleaseEnvironmentResponse:
            return await self._fences.guard(request.uid, lambda: self._release(request), ends=True)

        return await self._ledger.once(request, pb.ReleaseEnvironmentResponse, release)

    async def _release(
        self, request: pb.ReleaseEnvironmentRequest
    ) -> pb.ReleaseEnvironmentResponse:
        drivers = self._drivers.values()
        # Whose it is nobody else need be asked, who may be away; of what has no record, all are.
        owners = [each for each in drivers if await asyncio.to_thread(each.has, request.uid)]
        found = [await driver.release(request.uid) for driver in owners or drivers]
        return pb.ReleaseEnvironmentResponse(existed=any(found))

    async def ListProvisioned(
        self, request: pb.ListProvisionedRequest, context: Context
    ) -> pb.ListProvisionedResponse:
        page = self._tokens.page(request, default=_PAGE, maximum=_MAX_PAGE)
        patience = _PATIENCE if request.return_partial_success else None
        listed = await asyncio.gather(*(_listed(d, patience) for d in self._drivers.values()))
        told = dict(zip(self._drivers, listed, strict=True))
        everything = (each for some in listed if some is not None for each in some)
        found = sorted((each for each in everything if each.uid > page.after), key=lambda o: o.uid)
        shown = found[: page.size]
        more = self._tokens.next(request, after=shown[-1].uid) if len(found) > page.size else ""
        return pb.ListProvisionedResponse(
            observations=map(convert.observation, shown),
            next_page_token=more,
            page_size=page.size,
            unreachable=sorted(name for name, some in told.items() if some is None),
        )

    async def GetTenantUsage(
        self, request: pb.GetTenantUsageRequest, context: Context
    ) -> pb.GetTenantUsageResponse:
        call = calls.current()
        driver = self._drivers[self._default]
        if request.admit:
            await driver.admit(call.identity.tenant, call.limits.disk_bytes)
        others = [each for each in self._drivers.values() if each is not driver]
        counts = (self._active(each, call.identity.tenant) for each in others)
        found, more = await asyncio.gather(
            driver.usage(call.identity.tenant), asyncio.gather(*counts)
        )
        # The disk is that of all drivers, whichever is asked.
        return pb.GetTenantUsageResponse(
            active_environments=found.active + sum(more),
            disk_bytes=found.disk_bytes,
            disk_measure_time=convert.timestamp(found.disk_time),
        )

    @staticmethod
    async def _active(driver: Driver, tenant: str) -> int:
        """Sandboxes of a driver; what one that does not answer has is left out."""
        try:
            async with asyncio.timeout(_PATIENCE):
                return (await driver.usage(tenant)).active
        except (Unavailable, TimeoutError):
            return 0

    async def UpdateNetwork(
        self, request: pb.UpdateNetworkRequest, context: Context
    ) -> pb.UpdateNetworkResponse:
        driver, network = self._of(request.handle), convert.network_of(request.network)
        superseded, cut = await self._guarded(
            request.handle,
            lambda: driver.update_network(request.handle, network, request.revision),
        )
        return pb.UpdateNetworkResponse(superseded=superseded, cut=cut)

    def _named(self, name: str) -> Driver:
        driver = self._drivers.get(name or self._default)
        if driver is None:
            raise DriverUnknown("spec.driver", "no driver has this name", driver=name)
        return driver

    async def _need(self, driver: Driver, spec: Spec) -> None:
        """Raises InvalidArgument, CapabilityMissing for what a spec needs and the driver cannot."""
        known = frozenset(Capability)
        for unknown in sorted(spec.required - known):
            raise InvalidArgument(
                "spec.required_capabilities", f"{unknown} is none of {', '.join(sorted(known))}"
            )
        needed = {Capability.IMAGE: spec.image, Capability.SETUP: spec.setup}
        wanted = spec.required.union(name for name, value in needed.items() if value)
        can = (await driver.capabilities()).can if wanted else frozenset()
        for missing in sorted(wanted - can):
            raise CapabilityMissing(
                f"environments of the driver {driver.name} cannot do this: {missing}",
                remedy="Name a driver whose capabilities have it, or leave it out; "
                "GetCapabilities lists them.",
                capability=missing,
            )

    async def _guarded(self, handle: bytes, run: Callable[[], Awaitable[R]]) -> R:
        return await self._fences.guard(Handle.decode(handle).uid, run)

    def _of(self, handle: bytes) -> Driver:
        try:
            return self._drivers[Handle.decode(handle).driver]
        except (ValueError, KeyError) as error:
            raise HandleInvalid("handle", "not a handle of this provider") from error


async def _listed(driver: Driver, patience: float | None) -> tuple[Observation, ...] | None:
    """What it has; None if it does not answer within so many seconds. Without such a bound what it
    fails with is raised."""
    try:
        async with asyncio.timeout(patience):
            return await driver.list()
    except (Unavailable, TimeoutError):
        if patience is None:
            raise
        return None
