"""What any call may be refused for."""

import asyncio
import uuid

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.options.v1.options_pb2 import Role
from cove.registry.v1 import registry_pb2
from servicekit.errors import DeadlineExceeded, InvalidArgument
from services.git.errors import CellLost
from tests.errors.cases import GRPC, HTTP, provokes
from tests.errors.doors import Door, Http, Refusal
from tests.errors.world import Doors, Try
from tests.gateway.stage import eventually

LIST = pb.ListWorkspacesRequest()


def at(t: Try, doors: Doors) -> Door:
    """The same door of another gateway."""
    return doors.grpc if t.door.name == GRPC else doors.http


@provokes("INVALID_FIELD", "INVALID_ARGUMENT")
async def invalid_field(t: Try) -> Refusal:
    workspace = pb.Workspace(spec=registry_pb2.EnvironmentSpec(depth=-1))
    request = pb.CreateWorkspaceRequest(workspace_id="No Such!", workspace=workspace)
    return await t.door.ask("CreateWorkspace", request)


@provokes("REQUEST_ID_REUSED", "ALREADY_EXISTS")
async def request_id_reused(t: Try) -> Refusal:
    request = pb.CreateWorkspaceRequest(
        workspace_id=t.id("first"),
        workspace=pb.Workspace(spec=registry_pb2.EnvironmentSpec()),
        request_id=str(uuid.uuid4()),
    )
    await t.ok("CreateWorkspace", request)
    request.workspace_id = t.id("second")
    return await t.door.ask("CreateWorkspace", request)


@provokes("PAGE_TOKEN_INVALID", "INVALID_ARGUMENT")
async def page_token_invalid(t: Try) -> Refusal:
    return await t.door.ask("ListWorkspaces", pb.ListWorkspacesRequest(page_token="bm9uZQ"))


@provokes("UNAUTHENTICATED", "UNAUTHENTICATED")
async def unauthenticated(t: Try) -> Refusal:
    return await t.door.ask("ListWorkspaces", LIST, authorization="Bearer not-a-token")


@provokes("PERMISSION_DENIED", "PERMISSION_DENIED")
async def permission_denied(t: Try) -> Refusal:
    reader = f"Bearer {t.world.secrets['reader']}"
    request = pb.DeleteWorkspaceRequest(name="workspaces/mine")
    return await t.door.ask("DeleteWorkspace", request, authorization=reader)


@provokes("SHARE_LIMITED", "PERMISSION_DENIED")
async def share_limited(t: Try) -> Refusal:
    share = f"Bearer {t.world.secrets['share']}"
    request = pb.GetWorkspaceRequest(name="workspaces/another")
    return await t.door.ask("GetWorkspace", request, authorization=share)


@provokes("INTERNAL", "INTERNAL")
async def internal(t: Try) -> Refusal:
    """A tool refuses what the gateway itself made up."""
    name = await t.shared()
    t.stage.git.fail("GetWorktreeStatus", InvalidArgument("uid", "of the gateway's own making"))
    try:
        return await t.door.ask("GetWorktreeStatus", pb.GetWorktreeStatusRequest(name=name))
    finally:
        t.stage.heal()


@provokes("SERVICE_UNAVAILABLE", "UNAVAILABLE")
async def service_unavailable(t: Try) -> Refusal:
    """Git's cell has just ended. Where git itself is away, the gateway waits for it a while."""
    name = await t.shared()
    t.stage.git.fail("GetWorktreeStatus", CellLost("the cell has ended"))
    try:
        return await t.door.ask("GetWorktreeStatus", pb.GetWorktreeStatusRequest(name=name))
    finally:
        t.stage.heal()


@provokes("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
async def deadline_exceeded(t: Try) -> Refusal:
    """Its own would be half a minute: what a tool says whose time is up."""
    name = await t.shared()
    t.stage.git.fail("GetWorktreeStatus", DeadlineExceeded("the deadline passed", seconds="30"))
    try:
        return await t.door.ask("GetWorktreeStatus", pb.GetWorktreeStatusRequest(name=name))
    finally:
        t.stage.heal()


@provokes("MESSAGE_TOO_LARGE", "RESOURCE_EXHAUSTED")
async def message_too_large(t: Try) -> Refusal:
    spec = executor_pb2.ExecutionSpec(argv=["true", "x" * (5 << 20)])
    return await t.door.ask("Execute", pb.ExecuteRequest(name="workspaces/mine", spec=spec))


@provokes("MALFORMED_JSON", "INVALID_ARGUMENT", doors=(HTTP,))
async def malformed_json(t: Try) -> Refusal:
    assert isinstance(t.door, Http)
    return await t.door.request("POST", "/workspaces", content=b'{"spec": ')


@provokes("ROUTE_NOT_FOUND", "NOT_FOUND", doors=(HTTP,))
async def route_not_found(t: Try) -> Refusal:
    assert isinstance(t.door, Http)
    return await t.door.request("GET", "/no/such/path")


@provokes("AUTHENTICATION_LIMIT", "RESOURCE_EXHAUSTED")
async def authentication_limit(t: Try) -> Refusal:
    async with t.world.gateway("strangers", stranger_rate=1) as doors:
        door = at(t, doors)
        for _ in range(200):  # Some more come in, the slower it is.
            refused = await door.ask("ListWorkspaces", LIST, authorization="Bearer nobody")
            if refused.reason != "UNAUTHENTICATED":
                break
        return refused


@provokes("RATE_LIMITED", "RESOURCE_EXHAUSTED")
async def rate_limited(t: Try) -> Refusal:
    request = pb.GetWorkspaceRequest(name="workspaces/none")
    async with t.world.gateway("rates", read_rate=1) as doors:
        door = at(t, doors)
        for _ in range(200):  # Some more come in, the slower it is.
            refused = await door.ask("GetWorkspace", request)
            if refused.reason != "WORKSPACE_NOT_FOUND":
                break
        return refused


@provokes("OVERLOADED", "RESOURCE_EXHAUSTED")
async def overloaded(t: Try) -> Refusal:
    async with t.world.gateway("few", total_calls=1) as doors:
        # Gateways ask for the same by themselves, all the time.
        held = t.stage.registry.hold("ListEnvironments", correlation_id="first")
        first = asyncio.create_task(doors.grpc.call("ListWorkspaces", LIST, x_request_id="first"))
        await held.reached.wait()
        try:
            return await at(t, doors).ask("ListWorkspaces", LIST)
        finally:
            t.stage.heal()
            await first


@provokes("SHUTTING_DOWN", "UNAVAILABLE")
async def shutting_down(t: Try) -> Refusal:
    """A stream that is open when the gateway is told to stop."""
    name = await t.start(await t.shared(), "endless", "exec sleep 1000")
    request = pb.ReadOutputRequest(name=name, follow=True)
    t.stage.forget()
    async with t.world.gateway("stopping") as doors:
        listening = asyncio.create_task(at(t, doors).ask("ReadOutput", request))
        await eventually(lambda: _called(t, "ReadOutput"))
    return await listening


async def _called(t: Try, rpc: str) -> bool:
    return rpc in t.stage.executor.calls


@provokes("DISK_FULL", "RESOURCE_EXHAUSTED")
async def disk_full(t: Try) -> Refusal:
    spec = executor_pb2.ExecutionSpec(argv=["true"])
    tight = t.tight()
    name = await tight.workspace("full", repository="")
    return await tight.door.ask("Execute", pb.ExecuteRequest(name=name, spec=spec))


@provokes("FILTER_INVALID", "INVALID_ARGUMENT")
async def filter_invalid(t: Try) -> Refusal:
    return await t.door.ask("ListWorkspaces", pb.ListWorkspacesRequest(filter="state ="))


@provokes("ORDER_INVALID", "INVALID_ARGUMENT")
async def order_invalid(t: Try) -> Refusal:
    return await t.door.ask("ListWorkspaces", pb.ListWorkspacesRequest(order_by="weight"))


@provokes("REVISION_IN_FUTURE", "OUT_OF_RANGE")
async def revision_in_future(t: Try) -> Refusal:
    request = pb.WatchWorkspacesRequest(from_revision=10**12)
    return await t.door.ask("WatchWorkspaces", request)


@provokes("TOKEN_NOT_FOUND", "NOT_FOUND")
async def token_not_found(t: Try) -> Refusal:
    return await t.door.ask("RevokeToken", pb.RevokeTokenRequest(name="tokens/none"))


@provokes("TOKEN_EXISTS", "ALREADY_EXISTS")
async def token_exists(t: Try) -> Refusal:
    request = pb.CreateTokenRequest(token_id="t0")
    request.token.role = Role.ROLE_READER
    return await t.door.ask("CreateToken", request)
