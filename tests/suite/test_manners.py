"""Manners over gRPC and HTTP that a caller relies on, on the real suite."""

import asyncio

import grpc
import httpx
import pytest

from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import WorkspaceServiceStub
from tests.support.suite import Suite
from tests.support.walking import contents

pytestmark = pytest.mark.asyncio(loop_scope="package")

SECRET = "s3cret-of-nobody"


async def test_a_body_where_none_belongs_is_refused(http: httpx.AsyncClient) -> None:
    made = await http.post("/workspaces?workspace_id=kept", json={})
    assert made.status_code == 201
    answer = await http.request("DELETE", "/workspaces/kept", json={"etag": "wrong"})
    assert answer.status_code == 400
    assert (await http.get("/workspaces/kept")).status_code == 200
    assert (await http.delete("/workspaces/kept?force=true")).status_code == 200


async def test_an_update_refuses_what_it_would_ignore(http: httpx.AsyncClient) -> None:
    assert (await http.post("/workspaces?workspace_id=patched", json={})).status_code == 201
    answer = await http.patch("/workspaces/patched", json={"spec": {"repository": "file:///x"}})
    assert answer.status_code == 400
    assert "FIELD_IMMUTABLE" in answer.text
    answer = await http.patch("/workspaces/patched", json={"labels": {"a": "b"}})
    assert answer.json()["labels"] == {"a": "b"}
    assert (await http.delete("/workspaces/patched?force=true")).status_code == 200


async def test_a_secret_in_a_url_is_refused_and_kept_nowhere(
    suite: Suite, http: httpx.AsyncClient
) -> None:
    for url in (f"https://u:{SECRET}@example.org/a", f"https://{SECRET}@example.org/a"):
        answer = await http.post(
            "/workspaces?workspace_id=leaky&on_failure=ON_FAILURE_KEEP",
            json={"spec": {"repository": url}},
        )
        assert answer.status_code == 400
        assert "repository" in answer.text
        assert SECRET not in answer.text
    kept = dict(contents(suite.state))
    assert len(kept) > 5
    assert not [path for path, data in kept.items() if SECRET.encode() in data]
    assert SECRET.encode() not in suite.log.read_bytes()


async def test_a_limit_that_no_sandbox_can_live_with_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        "/workspaces?workspace_id=tiny", json={"spec": {"limits": {"memoryBytes": "4096"}}}
    )
    assert answer.status_code == 400
    assert "limits.memory_bytes" in answer.text


async def test_an_unknown_driver_is_told_at_its_field(http: httpx.AsyncClient) -> None:
    answer = await http.post("/workspaces?workspace_id=odd", json={"spec": {"driver": "none"}})
    assert answer.status_code == 400
    assert '"workspace.spec.driver"' in answer.text


async def test_ids_of_a_call_come_back(suite: Suite) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with grpc.aio.insecure_channel(suite.grpc) as channel:
        call = WorkspaceServiceStub(channel).ListWorkspaces(
            pb.ListWorkspacesRequest(),
            metadata=(
                ("authorization", f"Bearer {suite.token}"),
                ("x-request-id", "mine-1"),
                ("traceparent", trace),
            ),
        )
        await call
        returned = dict(await call.trailing_metadata())
    assert returned["x-request-id"] == "mine-1"
    assert str(returned["traceparent"]).split("-")[1] == trace.split("-")[1]


async def test_a_stranger_is_refused_before_its_body_is_read(suite: Suite) -> None:
    """The body never comes; the answer does."""
    host, _, port = suite.http.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /workspaces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: 1000000\r\n\r\n{"
    )
    async with asyncio.timeout(10):
        assert (await reader.readline()).split()[1] == b"401"
    writer.close()
    await writer.wait_closed()
