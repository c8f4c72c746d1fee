"""gRPC face of provider: check the request, ask the driver, convert."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from agent.handle import Handle
from cove.mount.v1 import mount_pb2
from cove.provider.v1 import provider_pb2 as pb
from cove.provider.v1.provider_pb2_grpc import ProviderServiceServicer
from servicekit import calls
from servicekit.errors import InvalidArgument
from servicekit.ledger import Ledger
from servicekit.paging import PageTokens
from servicekit.status import Context
from services.provider.driver import (
    Capabilities,
    Disk,
    Driver,
    Found,
    Isolation,
    Limits,
    Method,
    Network,
    Observation,
    Rule,
    Spec,
    Worktree,
)
from services.provider.errors import DriverUnknown, HandleInvalid

_PAGE: Final = 100
_MAX_PAGE: Final = 1000
_MOUNT_VERSIONS: Final = (1, 2)
_XATTRS: Final = {
    mount_pb2.Mount.XATTRS_UNSPECIFIED: "",
    mount_pb2.Mount.XATTRS_TRUSTED: "trusted",
    mount_pb2.Mount.XATTRS_USER: "user",
}

_ISOLATIONS: Final = {
    Isolation.NONE: pb.Capabilities.ISOLATION_UNSPECIFIED,
    Isolation.ROOT: pb.Capabilities.ISOLATION_NAMESPACES_ROOT,
    Isolation.USER: pb.Capabilities.ISOLATION_NAMESPACES_USER,
}
_METHODS: Final = {
    Method.NONE: pb.Capabilities.LIMIT_METHOD_UNSPECIFIED,
    Method.CGROUP_V1: pb.Capabilities.LIMIT_METHOD_CGROUP_V1,
    Method.CGROUP_V2: pb.Capabilities.LIMIT_METHOD_CGROUP_V2,
    Method.RLIMIT: pb.Capabilities.LIMIT_METHOD_RLIMIT,
}
_DISKS: Final = {
    Disk.NONE: pb.Capabilities.DISK_UNSPECIFIED,
    Disk.SOFT: pb.Capabilities.DISK_SOFT,
    Disk.HARD: pb.Capabilities.DISK_HARD,
}
_STATES: Final = {
    Found.DORMANT: pb.Observation.STATE_DORMANT,
    Found.ACTIVE: pb.Observation.STATE_ACTIVE,
    Found.BROKEN: pb.Observation.STATE_BROKEN,
}


class ProviderServicer(ProviderServiceServicer):
    def __init__(
        self, drivers: Mapping[str, Driver], default: str, ledger: Ledger, tokens: PageTokens
    ) -> None:
        self._drivers = drivers
        self._default = default
        self._ledger = ledger
        self._tokens = tokens

    async def GetCapabilities(
        self, request: pb.GetCapabilitiesRequest, context: Context
    ) -> pb.GetCapabilitiesResponse:
        found = await self._drivers[self._default].capabilities()
        idle = Duration()
        idle.FromTimedelta(found.idle_timeout)
        return pb.GetCapabilitiesResponse(
            capabilities=pb.Capabilities(
                node=found.node,
                drivers=sorted(self._drivers),
                default_driver=self._default,
                isolation=_ISOLATIONS[found.isolation],
                memory=_METHODS[found.memory],
                processes=_METHODS[found.processes],
                cpu=_METHODS[found.cpu],
                networks=_networks(found),
                idle_timeout=idle,
                remedy=found.remedy,
                freeze=found.freeze,
                disk=_DISKS[found.disk],
                open_files=_METHODS[found.open_files],
            )
        )

    async def ValidateSpec(
        self, request: pb.ValidateSpecRequest, context: Context
    ) -> pb.ValidateSpecResponse:
        spec = await self._named(request.spec.driver).validate(spec_of(request.spec))
        return pb.ValidateSpecResponse(spec=_spec_to_proto(spec))

    async def ProvisionEnvironment(
        self, request: pb.ProvisionEnvironmentRequest, context: Context
    ) -> pb.ProvisionEnvironmentResponse:
        return await self._ledger.once(
            request, pb.ProvisionEnvironmentResponse, lambda: self._provision(request)
        )

    async def _provision(
        self, request: pb.ProvisionEnvironmentRequest
    ) -> pb.ProvisionEnvironmentResponse:
        made = await self._named(request.spec.driver).provision(
            request.uid,
            calls.current().identity.tenant,
            spec_of(request.spec),
            worktree_of(request.mount),
        )
        return pb.ProvisionEnvironmentResponse(
            handle=made.handle, generation=made.generation, driver=made.driver, node=made.node
        )

    async def ActivateEnvironment(
        self, request: pb.ActivateEnvironmentRequest, context: Context
    ) -> pb.ActivateEnvironmentResponse:
        started = await self._of(request.handle).activate(request.handle)
        return pb.ActivateEnvironmentResponse(started=started)

    async def InspectEnvironment(
        self, request: pb.InspectEnvironmentRequest, context: Context
    ) -> pb.InspectEnvironmentResponse:
        found = await self._of(request.handle).inspect(request.handle)
        return pb.InspectEnvironmentResponse(observation=_observation(found))

    async def SuspendEnvironment(
        self, request: pb.SuspendEnvironmentRequest, context: Context
    ) -> pb.SuspendEnvironmentResponse:
        duration = request.duration.ToTimedelta()
        active = await self._of(request.handle).suspend(
            request.handle, duration, end_idle=request.end_idle
        )
        return pb.SuspendEnvironmentResponse(active=active)

    async def ResumeEnvironment(
        self, request: pb.ResumeEnvironmentRequest, context: Context
    ) -> pb.ResumeEnvironmentResponse:
        resumed = await self._of(request.handle).resume(request.handle)
        return pb.ResumeEnvironmentResponse(resumed=resumed)

    async def ReleaseEnvironment(
        self, request: pb.ReleaseEnvironmentRequest, context: Context
    ) -> pb.ReleaseEnvironmentResponse:
        return await self._ledger.once(
            request, pb.ReleaseEnvironmentResponse, lambda: self._release(request)
        )

    async def _release(
        self, request: pb.ReleaseEnvironmentRequest
    ) -> pb.ReleaseEnvironmentResponse:
        found = [await driver.release(request.uid) for driver in self._drivers.values()]
        return pb.ReleaseEnvironmentResponse(existed=any(found))

    async def ListProvisioned(
        self, request: pb.ListProvisionedRequest, context: Context
    ) -> pb.ListProvisionedResponse:
        page = self._tokens.page(request, default=_PAGE, maximum=_MAX_PAGE)
        everything = [found for each in self._drivers.values() for found in await each.list()]
        found = sorted((each for each in everything if each.uid > page.after), key=lambda o: o.uid)
        shown = found[: page.size]
        more = self._tokens.next(request, after=shown[-1].uid) if len(found) > page.size else ""
        return pb.ListProvisionedResponse(
            observations=map(_observation, shown), next_page_token=more, page_size=page.size
        )

    async def UpdateNetwork(
        self, request: pb.UpdateNetworkRequest, context: Context
    ) -> pb.UpdateNetworkResponse:
        superseded, cut = await self._of(request.handle).update_network(
            request.handle, _network(request.network), request.revision
        )
        return pb.UpdateNetworkResponse(superseded=superseded, cut=cut)

    def _named(self, name: str) -> Driver:
        driver = self._drivers.get(name or self._default)
        if driver is None:
            raise DriverUnknown("spec.driver", "no driver has this name", driver=name)
        return driver

    def _of(self, handle: bytes) -> Driver:
        try:
            return self._drivers[Handle.decode(handle).driver]
        except (ValueError, KeyError) as error:
            raise HandleInvalid("handle", "not a handle of this provider") from error


def _networks(found: Capabilities) -> list[pb.Capabilities.Network.ValueType]:
    lists = [pb.Capabilities.NETWORK_ALLOW_LIST] if found.allow_list else []
    return [pb.Capabilities.NETWORK_NONE, *lists]


def _network(network: pb.Network) -> Network:
    return Network(
        rules=tuple(Rule(host=each.host, ports=tuple(each.ports)) for each in network.allow)
    )


def spec_of(spec: pb.Spec) -> Spec:
    limits = spec.limits
    return Spec(
        driver=spec.driver,
        limits=Limits(
            memory_bytes=limits.memory_bytes,
            processes=limits.processes,
            milli_cpus=limits.milli_cpus,
            disk_bytes=limits.disk_bytes,
            open_files=limits.open_files,
        ),
        network=_network(spec.network),
    )


def _spec_to_proto(spec: Spec) -> pb.Spec:
    limits = spec.limits
    return pb.Spec(
        driver=spec.driver,
        limits=pb.Limits(
            memory_bytes=limits.memory_bytes,
            processes=limits.processes,
            milli_cpus=limits.milli_cpus,
            disk_bytes=limits.disk_bytes,
            open_files=limits.open_files,
        ),
        network=pb.Network(
            allow=[pb.Network.Rule(host=each.host, ports=each.ports) for each in spec.network.rules]
        ),
    )


def worktree_of(mount: mount_pb2.Mount) -> Worktree:
    if mount.version not in _MOUNT_VERSIONS:
        raise InvalidArgument("mount.version", "not known here")
    modes = (mount_pb2.Mount.MODE_PLAIN, mount_pb2.Mount.MODE_OVERLAY)
    if mount.mode not in modes[: mount.version]:
        raise InvalidArgument("mount.mode", "not known here")
    if mount.version == 1:
        return Worktree(tree=mount.worktree, git_view=mount.git_view, objects=mount.objects)
    if mount.git_view:
        raise InvalidArgument("mount.git_view", "in version 1 only")
    beside = Worktree(objects=mount.objects, lock=mount.lock, outside=mount.outside)
    if mount.mode == mount_pb2.Mount.MODE_PLAIN:
        _without(mount, "lowers", "upper", "work", "xattrs", "stack", "layers")
        return replace(beside, tree=mount.worktree)
    _without(mount, "worktree")
    for name in ("lowers", "upper", "work", "lock"):
        if not getattr(mount, name):
            raise InvalidArgument(f"mount.{name}", "an overlay needs it")
    if not _XATTRS.get(mount.xattrs):
        raise InvalidArgument("mount.xattrs", "not known here")
    return replace(
        beside,
        lowers=tuple(mount.lowers),
        upper=mount.upper,
        work=mount.work,
        xattrs=_XATTRS[mount.xattrs],
        stack=mount.stack,
        layers=mount.layers,
    )


def _without(mount: mount_pb2.Mount, *names: str) -> None:
    for name in names:
        if getattr(mount, name):
            raise InvalidArgument(f"mount.{name}", "not in this mode")


def _observation(found: Observation) -> pb.Observation:
    return pb.Observation(
        uid=found.uid,
        state=_STATES[found.state],
        driver=found.driver,
        tenant=found.tenant,
        provision_time=_timestamp(found.provision_time),
        activate_time=_timestamp(found.activate_time),
    )


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    made = Timestamp()
    made.FromDatetime(time)
    return made
