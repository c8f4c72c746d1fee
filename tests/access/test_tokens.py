"""Tokens as their owners and administrators have them."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import AuditServiceStub, WorkspaceServiceStub
from cove.options.v1.options_pb2 import Role
from cove.registry.v1.access_pb2 import Token
from gateway import trail
from gateway.identity import secret
from tests.access.stage import MISSING, SHARED, THERE, Stage, answered, bearer
from tests.registry.caller import Caller
from tests.servicekit.failing import Failure, failure

UNKNOWN = grpc.StatusCode.UNAUTHENTICATED


async def list_workspaces(stage: Stage, shown: str, tenant: str = "", which: int = 0) -> set[str]:
    stub = WorkspaceServiceStub(stage.channels[which])
    listed = await stub.ListWorkspaces(pb.ListWorkspacesRequest(), metadata=bearer(shown, tenant))
    return {each.name for each in listed.workspaces}


async def get(stage: Stage, shown: str, name: str = SHARED, which: int = 0) -> pb.Workspace:
    stub = WorkspaceServiceStub(stage.channels[which])
    asked = pb.GetWorkspaceRequest(name=name)
    return (await stub.GetWorkspace(asked, metadata=bearer(shown))).workspace


async def test_the_secret_is_in_one_answer_and_looks_like_one(stage: Stage) -> None:
    made = await stage.create(Role.ROLE_READER, description="for CI")
    assert secret.is_one(made.secret)
    assert made.token.description == "for CI"
    assert made.token.creator == "admin"
    metadata = bearer(stage.secrets["acme admin"])
    listed = await stage.access().ListTokens(pb.ListTokensRequest(), metadata=metadata)
    assert made.token in listed.tokens
    assert made.secret.encode() not in listed.SerializeToString()
    await stage.revoke(made.token.name)


def test_one_that_is_mistyped_is_none() -> None:
    made = secret.new()
    assert len({secret.new() for _ in range(100)}) == 100
    for at in range(len(made)):
        other = "a" if made[at] != "a" else "b"
        assert not secret.is_one(made[:at] + other + made[at + 1 :])
    assert not secret.is_one(made + "0")
    assert not secret.is_one(made[:-1])


async def test_one_that_is_mistyped_asks_nobody(stage: Stage) -> None:
    made = secret.new()
    stage.network.calls.clear()
    failed = await failure(get(stage, made[:-1] + ("a" if made[-1] != "a" else "b"), which=1))
    assert failed.code is UNKNOWN
    assert "LookUpTokens" not in stage.network.calls


async def test_a_retry_finds_the_same_token_and_loses_no_secret(stage: Stage) -> None:
    request = pb.CreateTokenRequest(
        token=Token(role=Role.ROLE_READER), request_id=str(uuid.uuid4())
    )
    metadata = bearer(stage.secrets["acme admin"])
    first, second = [
        await stage.access(which).CreateToken(request, metadata=metadata) for which in (0, 1)
    ]
    assert first.token == second.token
    assert first.secret != second.secret
    for each in (first, second):
        assert THERE in await list_workspaces(stage, each.secret)
    request.token.role = Role.ROLE_WRITER
    failed = await failure(stage.access().CreateToken(request, metadata=metadata))
    assert failed.reason == "REQUEST_ID_REUSED"
    assert failed.info.metadata["request_id"] == request.request_id
    await stage.revoke(first.token.name)
    for each in (first, second):
        assert (await failure(list_workspaces(stage, each.secret))).code is UNKNOWN


async def test_each_tenant_has_its_own(stage: Stage) -> None:
    assert await list_workspaces(stage, stage.secrets["other admin"]) == set()
    assert await list_workspaces(stage, stage.secrets["acme reader"]) == {SHARED, THERE}
    for tenant in ("acme", "other"):
        stub = AuditServiceStub(stage.channels[0])
        metadata = bearer(stage.secrets[f"{tenant} admin"])
        log = await stub.ListAuditEntries(pb.ListAuditEntriesRequest(), metadata=metadata)
        assert {each.tenant for each in log.entries} <= {tenant}
        tokens = await stage.access().ListTokens(pb.ListTokensRequest(), metadata=metadata)
        assert {each.tenant for each in tokens.tokens} == {tenant}


async def test_the_audit_log_names_tokens_and_who_uses_them(stage: Stage) -> None:
    made = await stage.create(Role.ROLE_ADMIN)
    id_ = made.token.name.removeprefix("tokens/")
    request = pb.CreateTokenRequest(token=Token(role=Role.ROLE_READER), token_id="of-a-token")
    made_by = await stage.access().CreateToken(request, metadata=bearer(made.secret))
    assert made_by.token.creator == f"token:{id_}"
    stub = AuditServiceStub(stage.channels[0])
    found: set[tuple[str, str, str]] = set()
    expected = {
        ("admin", "AccessService.CreateToken", made.token.name),
        (f"token:{id_}", "AccessService.CreateToken", "tokens/of-a-token"),
    }
    async with asyncio.timeout(30):
        while not expected <= found:
            answer = await stub.ListAuditEntries(
                pb.ListAuditEntriesRequest(), metadata=bearer(stage.secrets["acme admin"])
            )
            found = {(each.principal, each.action, each.resource) for each in answer.entries}
    await stage.revoke(made.token.name)
    await stage.revoke("tokens/of-a-token")


async def test_refusals_of_too_many_kinds_stay_with_their_tenant(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "_ALIKE", 1)
    audit = AuditServiceStub(stage.channels[0])
    listing = pb.ListAuditEntriesRequest(code="PERMISSION_DENIED", page_size=1000)

    async def told(tenant: str) -> int:
        metadata = bearer(stage.secrets[f"{tenant} admin"])
        answer = await audit.ListAuditEntries(listing, metadata=metadata)
        return sum(each.count for each in answer.entries)

    before = {tenant: await told(tenant) for tenant in ("acme", "other")}
    for tenant, times in (("acme", 3), ("other", 5)) * 2:
        metadata = bearer(stage.secrets[f"{tenant} reader"])
        for _ in range(times):
            await failure(stage.access().ListTokens(pb.ListTokensRequest(), metadata=metadata))
            await failure(audit.ListAuditEntries(listing, metadata=metadata))
    async with asyncio.timeout(30):
        while sum([await told(each) - had for each, had in before.items()]) < 32:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert [await told(tenant) - count for tenant, count in before.items()] == [12, 20]


async def test_an_operator_acts_for_the_tenant_that_it_names_and_nobody_else_does(
    stage: Stage,
) -> None:
    assert await list_workspaces(stage, stage.admin) == set()
    assert await list_workspaces(stage, stage.admin, "acme") == {SHARED, THERE}
    own = stage.secrets["acme admin"]
    assert await list_workspaces(stage, own, "acme") == {SHARED, THERE}
    failed = await failure(list_workspaces(stage, own, "other"))
    assert failed.reason == "PERMISSION_DENIED"
    failed = await failure(list_workspaces(stage, stage.admin, "../x"))
    assert failed.reason == "INVALID_FIELD"
    async with stage.web() as web:
        for shown, tenant, code in (
            (stage.admin, "acme", 200),
            (own, "acme", 200),
            (own, "other", 403),
            (stage.admin, "../x", 400),
            (stage.admin, "\xe9", 400),
        ):
            headers = [(b"authorization", f"Bearer {shown}".encode())]
            headers.append((b"cove-tenant", tenant.encode("latin-1")))
            answer = await web.get("/workspaces", headers=headers)
            assert answer.status_code == code, answer.text


async def test_a_share_is_made_of_what_is_there_and_of_ones_own(stage: Stage) -> None:
    asked: Any = {"role": Role.ROLE_READER, "workspace": SHARED}
    for shown, workspace in (("acme admin", MISSING), ("other admin", SHARED)):
        request = pb.CreateTokenRequest(token=Token(**asked | {"workspace": workspace}))
        metadata = bearer(stage.secrets[shown])
        failed = await failure(stage.access().CreateToken(request, metadata=metadata))
        assert (failed.reason, failed.info.metadata["name"]) == ("WORKSPACE_NOT_FOUND", workspace)
    request = pb.CreateTokenRequest(token=Token(**asked | {"role": Role.ROLE_ADMIN}))
    metadata = bearer(stage.secrets["acme admin"])
    failed = await failure(stage.access().CreateToken(request, metadata=metadata))
    assert failed.reason == "INVALID_FIELD"


async def test_a_share_reaches_no_other_workspace_by_any_field_or_message(stage: Stage) -> None:
    """Attach may start a command, by a field of its own; a stream may name one later."""
    attach = stage.channels[0].stream_stream(
        "/cove.gateway.v1.ExecutionService/Attach",
        pb.AttachRequest.SerializeToString,
        pb.AttachResponse.FromString,
    )
    first = pb.AttachRequest()
    first.open.start.parent = THERE
    first.open.start.execution.spec.argv.append("true")
    call = attach(iter([first]), metadata=bearer(stage.secrets["share writer"]))
    assert (await failure(call)).reason == "SHARE_LIMITED"
    write = stage.channels[0].stream_unary(
        "/cove.gateway.v1.ExecutionService/StreamInput",
        pb.StreamInputRequest.SerializeToString,
        pb.StreamInputResponse.FromString,
    )
    message = pb.StreamInputRequest(name=f"{THERE}/executions/x", offset=0)
    sent = write(iter([message]), metadata=bearer(stage.secrets["share writer"]))
    assert (await failure(sent)).reason == "SHARE_LIMITED"


async def test_a_share_ends_with_its_workspace_whoever_has_the_name_then(stage: Stage) -> None:
    name = "workspaces/short"
    async with grpc.aio.insecure_channel(stage.registry) as channel:
        acme = Caller(channel, "acme")
        await acme.register("short")
        share = (await stage.create(Role.ROLE_WRITER, workspace=name)).secret
        assert (await get(stage, share, name)).name == name
        await acme.deregister("short")
        await acme.register("short")
        failed = await failure(get(stage, share, name))  # It is known here still, and no use.
        assert failed.reason in ("WORKSPACE_NOT_FOUND", "UNAUTHENTICATED")
        await acme.deregister("short")
    async with asyncio.timeout(30):
        while (await failure(get(stage, share, name))).code is not UNKNOWN:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("which", [0, 1])
async def test_what_a_token_opened_ends_with_it(stage: Stage, which: int) -> None:
    """By a gateway that is told of the revocation, and by one that has to find out."""
    made = await stage.create(Role.ROLE_READER)
    stub = WorkspaceServiceStub(stage.channels[which])
    call = stub.WatchWorkspaces(pb.WatchWorkspacesRequest(), metadata=bearer(made.secret))
    events = aiter(call)
    while not (await anext(events)).HasField("snapshot_end"):
        pass
    held = stage.network.hold("GetEnvironment")
    waiting = asyncio.ensure_future(failure(get(stage, made.secret, MISSING, which=1)))
    await held.reached.wait()
    await stage.revoke(made.token.name)
    assert (await _end(events)).reason == "UNAUTHENTICATED"
    assert (await waiting).code is UNKNOWN
    stage.network.heal()
    assert (await failure(list_workspaces(stage, made.secret, which=which))).code is UNKNOWN


@pytest.mark.long
async def test_a_registry_that_is_away_makes_nobody_a_stranger(stage: Stage) -> None:
    made = await stage.create(Role.ROLE_READER)
    assert await list_workspaces(stage, made.secret, which=1)
    stage.network.fail("LookUpTokens")
    try:
        failed = await ended(list_workspaces, stage, made.secret, "", 1)
        assert (failed.code, failed.reason) == (
            grpc.StatusCode.UNAVAILABLE,
            "SERVICE_UNAVAILABLE",
        )
        assert await list_workspaces(stage, stage.admin, "acme", 1)  # The file is here.
    finally:
        stage.network.heal()
    assert await list_workspaces(stage, made.secret, which=1)
    await stage.revoke(made.token.name)


async def test_guessing_is_bounded_and_hurts_nobody_who_is_known(stage: Stage) -> None:
    known = stage.secrets["acme reader"]
    assert await list_workspaces(stage, known, which=1)
    stub = WorkspaceServiceStub(stage.channels[1])

    async def guess() -> Failure:
        metadata = (*bearer(secret.new()), ("cove-source", "ipv4:203.0.113.9:1"))
        return await failure(stub.ListWorkspaces(pb.ListWorkspacesRequest(), metadata=metadata))

    told = await asyncio.gather(*(guess() for _ in range(400)))
    told.append(await guess())  # It may be that all of the others came before one had failed.
    assert {(each.reason, each.code) for each in told} == {
        ("UNAUTHENTICATED", grpc.StatusCode.UNAUTHENTICATED),
        ("AUTHENTICATION_LIMIT", grpc.StatusCode.RESOURCE_EXHAUSTED),
    }
    assert await list_workspaces(stage, known, which=1)


async def ended(call: Any, *arguments: Any) -> Any:
    """The failure of the call, made again until it has one."""
    async with asyncio.timeout(30):
        while True:
            try:
                await call(*arguments)
            except grpc.aio.AioRpcError as error:
                return answered(error)
            await asyncio.sleep(0.05)


async def _end(events: AsyncIterator[Any]) -> Any:
    try:
        async with asyncio.timeout(30):
            async for _ in events:
                pass
    except grpc.aio.AioRpcError as error:
        return answered(error)
    raise AssertionError("it ended well")
