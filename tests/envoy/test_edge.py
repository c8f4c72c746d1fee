"""What Envoy does for callers of a suite: everything that deploy/envoy has is on."""

import asyncio
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1 import gateway_pb2_grpc as rpc
from tests.envoy import web
from tests.envoy.behind import BOT, Files, Gateway
from tests.envoy.edge import Edge, edge
from tests.servicekit.failing import Failure, failure
from tests.support.suite import Suite

WORKSPACES = "/cove.gateway.v1.WorkspaceService"
LIST = pb.ListWorkspacesRequest()


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def listed(channel: grpc.aio.Channel, *metadata: tuple[str, str]) -> Any:
    return await rpc.WorkspaceServiceStub(channel).ListWorkspaces(LIST, metadata=metadata)


async def refused(front: Edge, *metadata: tuple[str, str]) -> Failure:
    async with front.channel() as channel:
        return await failure(listed(channel, *metadata))


async def test_a_callers_certificate_is_who_calls(front: Edge, suite: Suite) -> None:
    """Its tenant and role are by the gateway's own rules; nobody can say of himself that he is."""
    async with front.channel(front.files.bot) as channel:
        stub = rpc.WorkspaceServiceStub(channel)
        made = await stub.CreateWorkspace(pb.CreateWorkspaceRequest(workspace_id="of-a-bot"))
        assert made.workspace.creator == BOT
        await stub.DeleteWorkspace(pb.DeleteWorkspaceRequest(name="workspaces/of-a-bot"))
    async with front.http(front.files.bot) as http:
        assert (await http.get("/workspaces")).status_code == 200  # As an RPC,
        assert (await http.get("/workspaces/of-a-bot")).status_code == 404  # and by HTTP.
    said = ("x-forwarded-client-cert", f"By=spiffe://cove/edge;Hash=1;URI={BOT}")
    assert (await refused(front, said)).code is grpc.StatusCode.UNAUTHENTICATED
    async with front.http(headers=dict([said])) as http:
        assert (await http.get("/workspaces/of-a-bot")).status_code == 401


async def test_a_strange_certificate_gets_nowhere(front: Edge) -> None:
    strange = front.files.inner.certify(BOT)
    async with front.channel(strange) as channel:
        failed = await failure(listed(channel))
        assert failed.code is grpc.StatusCode.UNAVAILABLE


async def test_where_a_caller_is_cannot_be_made_up(front: Edge, suite: Suite) -> None:
    """It is in the audit log, and strangers are limited by it. Of who comes over loopback Envoy
    says the address of the machine."""
    says = ("x-forwarded-for", "192.0.2.66"), ("cove-source", "ipv4:192.0.2.66:1")
    shown = bearer(suite.token)
    async with front.channel() as channel:
        stub, audit = rpc.WorkspaceServiceStub(channel), rpc.AuditServiceStub(channel)

        async def source(workspace_id: str, *said: tuple[str, str]) -> str:
            request = pb.CreateWorkspaceRequest(workspace_id=workspace_id)
            made = await stub.CreateWorkspace(request, metadata=(*shown, *said))
            name = made.workspace.name
            asked = pb.ListAuditEntriesRequest(action="CreateWorkspace", resource=name)
            async with asyncio.timeout(30):
                while not (found := (await audit.ListAuditEntries(asked, metadata=shown)).entries):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            gone = pb.DeleteWorkspaceRequest(name=name, force=True)
            await stub.DeleteWorkspace(gone, metadata=shown)
            return str(found[0].source)

        honest, forged = await source("honest"), await source("forged", *says)
        assert honest == forged != ""
        assert "192.0.2.66" not in forged


async def test_jwts_are_checked_before_the_gateway_sees_them(front: Edge, suite: Suite) -> None:
    files = front.files
    async with front.channel() as channel:
        assert (await listed(channel, *bearer(files.issuer.token()))).page_size
        before = await _passed(front)
        for wrong in (
            files.issuer.token(exp=1),
            files.issuer.token(aud="another"),
            files.issuer.token(iss="https://another.test"),
            files.issuer.token()[:-4] + "AAAA",
            "a.b.c",
        ):
            failed = await failure(listed(channel, *bearer(wrong)))
            assert failed.code is grpc.StatusCode.UNAUTHENTICATED
            assert failed.reason == "UNAUTHENTICATED"
        assert await _passed(front) == before
        failed = await failure(listed(channel, *bearer("cove_not-a-jwt")))  # The gateway's to say.
        assert failed.reason == "UNAUTHENTICATED"
        assert await _passed(front) == before + 1


async def test_what_envoy_refuses_is_told_as_cove_tells_it(front: Edge, suite: Suite) -> None:
    """The same of a token to Envoy and to the gateway, by gRPC and HTTP."""
    wrong = bearer("a.b.c")
    there = await refused(front, *wrong)
    async with grpc.aio.insecure_channel(suite.grpc) as channel:
        here = await failure(listed(channel, *wrong))
    assert (there.code, there.text, there.status) == (here.code, here.text, here.status)
    async with (
        front.http(headers=dict(wrong)) as through,
        httpx.AsyncClient(
            base_url=f"http://{suite.http}", headers=dict(wrong), timeout=30
        ) as direct,
    ):
        for path in ("/workspaces", "/workspaces/x", "/workspaces/x/files/y"):
            one, other = await through.get(path), await direct.get(path)
            assert one.status_code == other.status_code == 401
            assert one.json() == other.json()


async def test_too_many_calls(files: Files, behind: list[Gateway], suite: Suite) -> None:
    few = {
        "token_bucket: {max_tokens: 4000, tokens_per_fill: 2000, fill_interval: 1s}": (
            "token_bucket: {max_tokens: 2, tokens_per_fill: 1, fill_interval: 600s}"
        )
    }
    async with edge(files, behind, changes=few) as narrow, narrow.channel() as channel:
        found = [await _code(channel, suite) for _ in range(4)]
        assert [*map(bool, found)] == [False, False, True, True]
        failed = found[-1]
        assert failed
        assert failed.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert failed.reason == "RATE_LIMITED"
        assert failed.detail(error_details_pb2.RetryInfo).retry_delay.seconds == 1
        async with narrow.http() as http:
            answer = await http.get("/workspaces")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        told = json_format.ParseDict(answer.json(), status_pb2.Status())
        assert told == failed.status


async def test_who_is_no_gateway_gets_no_calls(files: Files, behind: list[Gateway]) -> None:
    """Although it has a certificate of the same authority."""
    other = {"exact: spiffe://cove/gateway": "exact: spiffe://cove/another"}
    async with edge(files, behind, changes=other, healthy_places=0) as alone:
        async with asyncio.timeout(30):
            while not await alone.stats("cluster.gateways.ssl.fail_verify_san"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        failed = await refused(alone)
        assert failed.code is grpc.StatusCode.UNAVAILABLE
        assert failed.reason == "SERVICE_UNAVAILABLE"
        assert failed.detail(error_details_pb2.RetryInfo).retry_delay.seconds == 1
        async with alone.http() as http:
            answer = await http.get("/healthz")
        assert answer.status_code == 503
        assert json_format.ParseDict(answer.json(), status_pb2.Status()) == failed.status


@pytest.mark.parametrize("kind", [web.BINARY, web.TEXT])
async def test_grpc_web(front: Edge, suite: Suite, kind: str) -> None:
    """As a browser has it: HTTP/1.1, a frame, the trailers in the body."""
    headers = dict(bearer(suite.token)) | {"origin": "http://localhost:8080"}
    async with front.http(headers=headers) as http:
        path = f"{WORKSPACES}/ListWorkspaces"
        (found,), ended = await web.call(http, path, LIST, pb.ListWorkspacesResponse, kind=kind)
        assert found.page_size == 100
        assert ended["grpc-status"] == "0"
        asked = pb.GetWorkspaceRequest(name="workspaces/nowhere")
        path = f"{WORKSPACES}/GetWorkspace"
        none, ended = await web.call(http, path, asked, pb.GetWorkspaceResponse, kind=kind)
        assert (none, ended["grpc-status"]) == ([], "5")
        assert ended["grpc-status-details-bin"]
        preflight = await http.options(
            path,
            headers={
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization,content-type,x-grpc-web",
            },
        )
        assert preflight.headers["access-control-allow-origin"] == headers["origin"]
        assert "x-grpc-web" in preflight.headers["access-control-allow-headers"]
        elsewhere = await http.options(path, headers={"origin": "https://evil.test"})
        assert "access-control-allow-origin" not in elsewhere.headers


async def test_health_and_reflection_go_through(front: Edge, suite: Suite) -> None:
    async with front.channel() as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def _code(channel: grpc.aio.Channel, suite: Suite) -> Failure | None:
    try:
        await listed(channel, *bearer(suite.token))
    except grpc.aio.AioRpcError as error:
        return Failure(error)
    return None


async def _passed(front: Edge) -> int:
    """How many calls went on to gateways."""
    return sum((await front.stats("cluster.gateways.upstream_rq_total")).values())
