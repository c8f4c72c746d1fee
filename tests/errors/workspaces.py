"""Workspaces: made, changed and ended."""

import asyncio
import sqlite3
import time
import uuid
from contextlib import closing
from typing import Any

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from cove.gateway.v1 import gateway_pb2 as pb
from cove.options.v1.options_pb2 import Role
from cove.registry.v1 import access_pb2, registry_pb2
from services.registry import tokens
from services.registry.retention import Retention, sweep
from tests.errors.cases import provokes
from tests.errors.doors import Refusal
from tests.errors.general import at
from tests.errors.world import Doors, Try, limited
from tests.gateway.stage import Stage


@provokes("WORKSPACE_NOT_FOUND", "NOT_FOUND")
async def workspace_not_found(t: Try) -> Refusal:
    return await t.door.ask("GetWorkspace", pb.GetWorkspaceRequest(name="workspaces/none"))


@provokes("WORKSPACE_EXISTS", "ALREADY_EXISTS")
async def workspace_exists(t: Try) -> Refusal:
    workspace = pb.Workspace(spec=registry_pb2.EnvironmentSpec())
    request = pb.CreateWorkspaceRequest(workspace_id="mine", workspace=workspace)
    return await t.door.ask("CreateWorkspace", request)


@provokes("ETAG_MISMATCH", "ABORTED")
async def etag_mismatch(t: Try) -> Refusal:
    request = pb.UpdateWorkspaceRequest(
        workspace=pb.Workspace(name="workspaces/mine", etag="older", labels={"a": "b"}),
        update_mask=FieldMask(paths=["labels"]),
    )
    return await t.door.ask("UpdateWorkspace", request)


@provokes("FIELD_IMMUTABLE", "INVALID_ARGUMENT")
async def field_immutable(t: Try) -> Refusal:
    request = pb.UpdateWorkspaceRequest(
        workspace=pb.Workspace(name="workspaces/mine"), update_mask=FieldMask(paths=["branch"])
    )
    return await t.door.ask("UpdateWorkspace", request)


@provokes("WORKSPACE_NOT_READY", "FAILED_PRECONDITION")
async def workspace_not_ready(t: Try) -> Refusal:
    return await t.door.ask(
        "UndeleteWorkspace", pb.UndeleteWorkspaceRequest(name="workspaces/mine")
    )


@provokes("WORKSPACE_SUSPENDED", "FAILED_PRECONDITION")
async def workspace_suspended(t: Try) -> Refusal:
    name = await t.workspace("asleep")
    await t.ok("SuspendWorkspace", pb.SuspendWorkspaceRequest(name=name))
    return await t.door.ask("ListFiles", pb.ListFilesRequest(name=name, path="."))


@provokes("WORKSPACE_BUSY", "FAILED_PRECONDITION")
async def workspace_busy(t: Try) -> Refusal:
    name = await t.workspace("busy")
    await t.start(name, "sleeper", "sleep 1000")
    return await t.door.ask("SuspendWorkspace", pb.SuspendWorkspaceRequest(name=name))


@provokes("CREATE_FAILED", "ABORTED")
async def create_failed(t: Try) -> Refusal:
    """The request that made a workspace comes again when that is gone."""
    workspace = pb.Workspace(spec=registry_pb2.EnvironmentSpec())
    request = pb.CreateWorkspaceRequest(
        workspace_id=t.id("gone"), workspace=workspace, request_id=str(uuid.uuid4())
    )
    made = await t.ok("CreateWorkspace", request)
    gone = pb.DeleteWorkspaceRequest(name=made.workspace.name, force=True)
    await t.ok("DeleteWorkspace", gone)
    return await t.door.ask("CreateWorkspace", request)


@provokes("OPERATION_IN_PROGRESS", "ABORTED")
async def operation_in_progress(t: Try) -> Refusal:
    """Another gateway is deleting it."""
    name = await t.workspace("twice")
    request = pb.DeleteWorkspaceRequest(name=name, force=True)
    async with t.world.gateway("elsewhere") as doors:
        # Gateways remove what belongs to nobody, too.
        held = t.stage.git.hold("RemoveWorktree", correlation_id="first")
        first = asyncio.create_task(
            doors.grpc.call("DeleteWorkspace", request, x_request_id="first")
        )
        await held.reached.wait()
        try:
            return await t.door.ask("DeleteWorkspace", request)
        finally:
            t.stage.heal()
            await first


@provokes("LEASE_LOST", "ABORTED")
async def lease_lost(t: Try) -> Refusal:
    """It is deleted while its network is changed."""
    name = await t.workspace("torn")
    workspace = pb.Workspace(name=name)
    workspace.spec.network.allow.add(host="127.0.0.1", ports=[80])
    request = pb.UpdateWorkspaceRequest(
        workspace=workspace, update_mask=FieldMask(paths=["spec.network"])
    )
    held = t.stage.provider.hold("UpdateNetwork")
    update = asyncio.create_task(t.door.ask("UpdateWorkspace", request))
    try:
        await held.reached.wait()
        await t.ok("DeleteWorkspace", pb.DeleteWorkspaceRequest(name=name, force=True))
    finally:
        t.stage.heal()
    return await update


@provokes("QUOTA_EXCEEDED", "RESOURCE_EXHAUSTED")
async def quota_exceeded(t: Try) -> Refusal:
    """Of a tenant that may have one."""
    tenant = t.id("small")
    quota = access_pb2.Quota(limits=access_pb2.QuotaLimits(workspaces=1))
    few = pb.UpdateQuotaRequest(quota=quota, update_mask=FieldMask(paths=["limits.workspaces"]))
    await t.world.doors.grpc.call("UpdateQuota", few, cove_tenant=tenant)
    workspace = pb.Workspace(spec=registry_pb2.EnvironmentSpec())
    one = pb.CreateWorkspaceRequest(workspace_id="one", workspace=workspace)
    await t.world.doors.grpc.call("CreateWorkspace", one, cove_tenant=tenant)
    two = pb.CreateWorkspaceRequest(workspace_id="two", workspace=workspace)
    return await t.door.ask("CreateWorkspace", two, cove_tenant=tenant)


@provokes("SNAPSHOT_NOT_FOUND", "NOT_FOUND")
async def snapshot_not_found(t: Try) -> Refusal:
    request = pb.ForkWorkspaceRequest(
        name="workspaces/mine", workspace_id=t.id("fork"), snapshot_id="none"
    )
    return await t.door.ask("ForkWorkspace", request)


@provokes("SNAPSHOT_EXISTS", "ALREADY_EXISTS")
async def snapshot_exists(t: Try) -> Refusal:
    name = await t.shared()
    request = pb.SnapshotWorkspaceRequest(name=name, snapshot_id="first")
    await t.ok("SnapshotWorkspace", request)
    return await t.door.ask("SnapshotWorkspace", request)


@provokes("BRANCH_EXISTS", "ALREADY_EXISTS")
async def branch_exists(t: Try) -> Refusal:
    await t.workspace("owner", branch=t.id("topic"))
    spec = registry_pb2.EnvironmentSpec(
        repository=f"file://{t.stage.repository}", branch=t.id("topic")
    )
    request = pb.CreateWorkspaceRequest(
        workspace_id=t.id("latecomer"), workspace=pb.Workspace(spec=spec)
    )
    return await t.door.ask("CreateWorkspace", request)


@provokes("NODE_UNAVAILABLE", "UNAVAILABLE")
async def node_unavailable(t: Try) -> Refusal:
    """Of two nodes one does not answer; the workspace is on that."""
    workspace = pb.Workspace(spec=registry_pb2.EnvironmentSpec())
    request = pb.CreateWorkspaceRequest(workspace_id=t.id("stranded"), workspace=workspace)
    async with t.world.gateway("there", **nodes(t.stage, "p")) as doors:
        made = await once_it_answers(doors, request)
    async with t.world.gateway("gone", **nodes(t.stage, "q")) as doors:
        return await at(t, doors).ask(
            "ListFiles", pb.ListFilesRequest(name=made.workspace.name, path=".")
        )


async def once_it_answers(doors: Doors, request: pb.CreateWorkspaceRequest) -> Any:
    """A gateway that has just begun has not asked its nodes yet."""
    while True:
        try:
            return await doors.grpc.call("CreateWorkspace", request)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise


def nodes(stage: Stage, name: str) -> dict[str, Any]:
    """Settings of a gateway that knows this one only."""
    tools = ("git", "provider", "executor")
    return {"nodes": (name,), **{tool: f"unix:{stage.runtime}/{{node}}/{tool}" for tool in tools}}


@provokes("PROXY_PORT_TAKEN", "FAILED_PRECONDITION")
async def proxy_port_taken(t: Try) -> Refusal:
    name = await t.workspace("squat")
    squat = (
        "import socket\nwith socket.create_server(('127.0.0.1', 3128)) as taken:\n"
        "    print('taken', flush=True); taken.accept()"
    )
    execution = await t.start(name, "squat", f'exec python3 -c "{squat}"')
    await t.said(execution, b"taken")
    workspace = pb.Workspace(name=name)
    workspace.spec.network.allow.add(host="127.0.0.1", ports=[80])
    request = pb.UpdateWorkspaceRequest(
        workspace=workspace, update_mask=FieldMask(paths=["spec.network"])
    )
    return await t.door.ask("UpdateWorkspace", request)


@provokes("DRIVER_UNKNOWN", "INVALID_ARGUMENT")
async def driver_unknown(t: Try) -> Refusal:
    return await _create(t, driver="none")


@provokes("CAPABILITY_MISSING", "FAILED_PRECONDITION")
async def capability_missing(t: Try) -> Refusal:
    return await _create(t, required_capabilities=["image"])


async def _create(t: Try, **spec: Any) -> Refusal:
    workspace = pb.Workspace(spec=registry_pb2.EnvironmentSpec(**spec))
    request = pb.CreateWorkspaceRequest(workspace_id=t.id("x"), workspace=workspace)
    return await t.door.ask("CreateWorkspace", request)


@provokes("TOKEN_LIMIT", "RESOURCE_EXHAUSTED")
async def token_limit(t: Try) -> Refusal:
    """One token more than a tenant may have."""
    request = pb.CreateTokenRequest(token=access_pb2.Token(role=Role.ROLE_READER))
    with limited(tokens, "MOST", 1):
        return await t.door.ask("CreateToken", request)


@provokes("REVISION_COMPACTED", "OUT_OF_RANGE")
async def revision_compacted(t: Try) -> Refusal:
    """The history that nobody keeps any longer is swept away, as every hour."""
    path = t.stage.state / "registry" / "registry.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        sweep(database, time.time_ns(), Retention(changes=1))
    return await t.door.ask("WatchWorkspaces", pb.WatchWorkspacesRequest(from_revision=1))
