"""Between the messages of provider and what drivers know."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from cove.mount.v1 import mount_pb2
from cove.provider.v1 import provider_pb2 as pb
from servicekit.errors import InvalidArgument
from services.provider.capabilities import (
    Capabilities,
    Capability,
    Disk,
    Isolation,
    Method,
    Mounting,
)
from services.provider.driver import Found, Limits, Network, Observation, Rule, Spec, Worktree

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
_MODES: Final = {
    Mounting.OVERLAY: mount_pb2.Mount.MODE_OVERLAY,
    Mounting.PLAIN: mount_pb2.Mount.MODE_PLAIN,
}
_STATES: Final = {
    Found.DORMANT: pb.Observation.STATE_DORMANT,
    Found.ACTIVE: pb.Observation.STATE_ACTIVE,
    Found.BROKEN: pb.Observation.STATE_BROKEN,
}


def capabilities(found: Capabilities, drivers: list[str], default: str) -> pb.Capabilities:
    idle = Duration()
    idle.FromTimedelta(found.idle_timeout)
    return pb.Capabilities(
        node=found.node,
        drivers=drivers,
        default_driver=default,
        isolation=_ISOLATIONS[found.isolation],
        memory=_METHODS[found.memory],
        processes=_METHODS[found.processes],
        cpu=_METHODS[found.cpu],
        networks=networks(found),
        idle_timeout=idle,
        remedy=found.remedy,
        freeze=Capability.FREEZE in found.can,
        disk=_DISKS[found.disk],
        open_files=_METHODS[found.open_files],
        driver=found.driver,
        capabilities=sorted(found.can),
        mounts=modes(found.mounts),
    )


def modes(mounts: Collection[Mounting]) -> list[mount_pb2.Mount.Mode.ValueType]:
    return [mode for each, mode in _MODES.items() if each in mounts]


def networks(found: Capabilities) -> list[pb.Capabilities.Network.ValueType]:
    able = Capability.ALLOW_LIST in found.can
    lists = [pb.Capabilities.NETWORK_ALLOW_LIST] if able else []
    return [pb.Capabilities.NETWORK_NONE, *lists]


def network_of(network: pb.Network) -> Network:
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
        network=network_of(spec.network),
        image=spec.image,
        setup=tuple(spec.setup),
        required=frozenset(spec.required_capabilities),
        rebuild=spec.rebuild,
    )


def spec_to_proto(spec: Spec) -> pb.Spec:
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
        image=spec.image,
        setup=spec.setup,
        required_capabilities=sorted(spec.required),
        rebuild=spec.rebuild,
    )


def worktree_of(mount: mount_pb2.Mount) -> Worktree:
    """Raises `InvalidArgument`."""
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


def observation(found: Observation) -> pb.Observation:
    return pb.Observation(
        uid=found.uid,
        state=_STATES[found.state],
        driver=found.driver,
        tenant=found.tenant,
        handle=found.handle,
        generation=found.generation,
        provision_time=timestamp(found.provision_time),
        activate_time=timestamp(found.activate_time),
    )


def timestamp(time: datetime | None) -> Timestamp | None:
    """None where there is none."""
    if time is None:
        return None
    made = Timestamp()
    made.FromDatetime(time)
    return made
