"""Between the messages of the registry, the provider and the gateway."""

from typing import Final

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.git.v1 import git_pb2
from cove.provider.v1 import provider_pb2
from cove.registry.v1.registry_pb2 import (
    Environment,
    EnvironmentSpec,
    WatchEnvironmentsResponse,
)
from gateway import names

NETWORK_FIELDS: Final = {
    f"spec.network.allow[{number}].host": f"workspace.spec.network.allow[{number}].host"
    for number in range(256)
}
_SHOWN: Final = (
    *("progress", "failure", "create_time", "update_time", "delete_time", "purge_time"),
    *("expire_time", "last_active_time", "suspend_time"),
)
_PROXY: Final = "http://127.0.0.1:3128"
"""Of every sandbox that has one; `agent.egress.PORT`."""
_PROXY_ENV: Final = {
    spelled: value
    for name, value in (
        *((name, _PROXY) for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")),
        ("NO_PROXY", "localhost,127.0.0.1,::1"),
    )
    for spelled in (name, name.lower())
}


def workspace(environment: Environment) -> pb.Workspace:
    """The record as its caller sees it."""
    shown = pb.Workspace(
        name=names.workspace_name(environment.name),
        uid=environment.uid,
        state=pb.Workspace.State.Value(Environment.State.Name(environment.state)),
        spec=environment.spec,
        labels=environment.labels,
        annotations=environment.annotations,
        branch=environment.worktree.branch or names.branch_of(environment),
        base_commit=environment.worktree.base_commit,
        head_commit=environment.head_commit,
        driver=environment.driver,
        creator=environment.creator,
        warnings=environment.warnings,
        etag=environment.etag,
        cause=pb.Workspace.Cause.Value(Environment.Cause.Name(environment.cause)),
    )
    for field in _SHOWN:
        if environment.HasField(field):
            getattr(shown, field).CopyFrom(getattr(environment, field))
    if environment.worktree.HasField("resolved_time"):
        shown.resolved_time.CopyFrom(environment.worktree.resolved_time)
    if environment.HasField("source"):
        source = names.workspace_name(environment.source.name)
        of = environment.source.snapshot_id
        shown.source = f"{source}{names.SNAPSHOTS}{of}" if of else source
    return shown


def snapshot(environment: Environment, found: git_pb2.Snapshot) -> pb.Snapshot:
    """A snapshot as its caller sees it."""
    return pb.Snapshot(
        name=f"{names.workspace_name(environment.name)}{names.SNAPSHOTS}{found.id}",
        head_commit=found.head_commit,
        create_time=found.create_time,
    )


def change(event: WatchEnvironmentsResponse) -> pb.WatchWorkspacesResponse | None:
    """What the registry tells of a record, in words of workspaces; None: nothing that we know."""
    told = pb.WatchWorkspacesResponse()
    match event.WhichOneof("event"):
        case "snapshot":
            told.snapshot.CopyFrom(workspace(event.snapshot))
        case "snapshot_end":
            told.snapshot_end.revision = event.snapshot_end.revision
        case "put":
            told.put.workspace.CopyFrom(workspace(event.put))
            told.put.revision = event.put.revision
        case "delete":
            told.delete.name = names.workspace_name(event.delete.name)
            told.delete.uid = event.delete.uid
            told.delete.revision = event.delete.revision
        case "heartbeat":
            told.heartbeat.revision = event.heartbeat.revision
        case _:
            return None
    return told


def provider_spec(spec: EnvironmentSpec) -> provider_pb2.Spec:
    """The part of a spec that is the provider's."""
    return provider_pb2.Spec(
        driver=spec.driver,
        limits=provider_pb2.Limits(
            memory_bytes=spec.limits.memory_bytes,
            processes=spec.limits.processes,
            milli_cpus=spec.limits.milli_cpus,
            disk_bytes=spec.limits.disk_bytes,
            open_files=spec.limits.open_files,
        ),
        network=provider_network(spec),
        image=spec.image,
        setup=spec.setup,
        required_capabilities=spec.required_capabilities,
        rebuild=spec.rebuild,
    )


def environment_limits(spec: EnvironmentSpec) -> executor_pb2.EnvironmentLimits | None:
    """The limits of a spec that are the executor's; None where there is none."""
    limits = spec.limits
    if not limits.disk_bytes and not limits.open_files:
        return None
    return executor_pb2.EnvironmentLimits(
        disk_bytes=limits.disk_bytes, open_files=limits.open_files
    )


def provider_network(spec: EnvironmentSpec) -> provider_pb2.Network:
    """What may be reached, as the provider is told."""
    return provider_pb2.Network(
        allow=[
            provider_pb2.Network.Rule(host=each.host, ports=each.ports)
            for each in spec.network.allow
        ]
    )


def commands_env(spec: EnvironmentSpec) -> dict[str, str]:
    """Variables that every command gets: where the proxy is, unless the spec says otherwise."""
    return {**(_PROXY_ENV if spec.network.allow else {}), **spec.env}
