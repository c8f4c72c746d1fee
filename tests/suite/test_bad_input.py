"""Bad input: the same code, reason, field and remedy over gRPC and HTTP, and nothing changes."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from google.protobuf import json_format
from google.rpc import status_pb2
from grpc_status import rpc_status

from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1 import gateway_pb2_grpc as stubs
from tests.support.suite import Suite

pytestmark = pytest.mark.asyncio(loop_scope="package")

ID = "3f2b8a52-9f53-4f0e-9b9d-0d5d3f0f6c11"
FILES = stubs.FileServiceStub
RUNS = stubs.ExecutionServiceStub
SOURCES = stubs.SourceServiceStub
SPACES = stubs.WorkspaceServiceStub


@dataclass(frozen=True, kw_only=True)
class Case:
    stub: Any
    rpc: str
    request: dict[str, Any]
    http: tuple[str, str]
    body: Any = None
    code: str
    status: int
    reason: str
    fields: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)


CASES = {
    "unknown repository": Case(
        stub=SPACES,
        rpc="CreateWorkspace",
        request={
            "workspaceId": "bad",
            "workspace": {"spec": {"repository": "file:///nowhere/at-all.git"}},
        },
        http=("POST", "/workspaces?workspace_id=bad"),
        body={"spec": {"repository": "file:///nowhere/at-all.git"}},
        code="NOT_FOUND",
        status=404,
        reason="REPOSITORY_NOT_FOUND",
    ),
    "repository of a forbidden kind": Case(
        stub=SPACES,
        rpc="CreateWorkspace",
        request={"workspaceId": "bad", "workspace": {"spec": {"repository": "ext::sh -c id"}}},
        http=("POST", "/workspaces?workspace_id=bad"),
        body={"spec": {"repository": "ext::sh -c id"}},
        code="INVALID_ARGUMENT",
        status=400,
        reason="REMOTE_FORBIDDEN",
    ),
    "unknown revision": Case(
        stub=SPACES,
        rpc="CreateWorkspace",
        request={
            "workspaceId": "bad",
            "workspace": {"spec": {"repository": "file://{repository}", "revision": "nope"}},
        },
        http=("POST", "/workspaces?workspace_id=bad"),
        body={"spec": {"repository": "file://{repository}", "revision": "nope"}},
        code="NOT_FOUND",
        status=404,
        reason="REVISION_NOT_FOUND",
    ),
    "an id that is no label": Case(
        stub=SPACES,
        rpc="CreateWorkspace",
        request={"workspaceId": "No Label"},
        http=("POST", "/workspaces?workspace_id=No%20Label"),
        body={},
        code="INVALID_ARGUMENT",
        status=400,
        reason="INVALID_FIELD",
        fields=["workspace_id"],
    ),
    "an update of what is no name": Case(
        stub=SPACES,
        rpc="UpdateWorkspace",
        request={"workspace": {"name": "workspaces/No-Label"}},
        http=("PATCH", "/workspaces/No-Label"),
        body={},
        code="INVALID_ARGUMENT",
        status=400,
        reason="INVALID_FIELD",
        fields=["workspace.name"],
    ),
    "duplicate id": Case(
        stub=SPACES,
        rpc="CreateWorkspace",
        request={"workspaceId": "good", "workspace": {"spec": {"repository": "file:///other"}}},
        http=("POST", "/workspaces?workspace_id=good"),
        body={"spec": {"repository": "file:///other"}},
        code="ALREADY_EXISTS",
        status=409,
        reason="WORKSPACE_EXISTS",
    ),
    "reused request id": Case(
        stub=SPACES,
        rpc="CreateWorkspace",
        request={"workspaceId": "other", "workspace": {}, "requestId": ID},
        http=("POST", "/workspaces?workspace_id=other"),
        body={},
        headers={"idempotency-key": ID},
        code="ALREADY_EXISTS",
        status=409,
        reason="REQUEST_ID_REUSED",
    ),
    "wrong etag": Case(
        stub=SPACES,
        rpc="DeleteWorkspace",
        request={"name": "workspaces/good", "etag": "wrong"},
        http=("DELETE", "/workspaces/good?etag=wrong"),
        code="ABORTED",
        status=409,
        reason="ETAG_MISMATCH",
    ),
    "unknown workspace": Case(
        stub=RUNS,
        rpc="Execute",
        request={"name": "workspaces/none", "spec": {"argv": ["true"]}},
        http=("POST", "/workspaces/none/execute"),
        body={"spec": {"argv": ["true"]}},
        code="NOT_FOUND",
        status=404,
        reason="WORKSPACE_NOT_FOUND",
    ),
    "empty argv": Case(
        stub=RUNS,
        rpc="Execute",
        request={"name": "workspaces/good", "spec": {}},
        http=("POST", "/workspaces/good/execute"),
        body={"spec": {}},
        code="INVALID_ARGUMENT",
        status=400,
        reason="INVALID_FIELD",
        fields=["spec"],
    ),
    "absent program": Case(
        stub=RUNS,
        rpc="Execute",
        request={"name": "workspaces/good", "spec": {"argv": ["no-such-program"]}},
        http=("POST", "/workspaces/good/execute"),
        body={"spec": {"argv": ["no-such-program"]}},
        code="NOT_FOUND",
        status=404,
        reason="PROGRAM_NOT_FOUND",
    ),
    "absent directory": Case(
        stub=RUNS,
        rpc="Execute",
        request={"name": "workspaces/good", "spec": {"argv": ["true"], "cwd": "none"}},
        http=("POST", "/workspaces/good/execute"),
        body={"spec": {"argv": ["true"], "cwd": "none"}},
        code="NOT_FOUND",
        status=404,
        reason="CWD_NOT_FOUND",
    ),
    "a timeout that is too long": Case(
        stub=RUNS,
        rpc="Execute",
        request={"name": "workspaces/good", "spec": {"argv": ["true"], "timeout": "9999999s"}},
        http=("POST", "/workspaces/good/execute"),
        body={"spec": {"argv": ["true"], "timeout": "9999999s"}},
        code="INVALID_ARGUMENT",
        status=400,
        reason="INVALID_FIELD",
        fields=["spec.timeout"],
    ),
    "unknown execution": Case(
        stub=RUNS,
        rpc="GetExecution",
        request={"name": "workspaces/good/executions/none"},
        http=("GET", "/workspaces/good/executions/none"),
        code="NOT_FOUND",
        status=404,
        reason="EXECUTION_NOT_FOUND",
    ),
    "path outside the workspace": Case(
        stub=FILES,
        rpc="StatFile",
        request={"name": "workspaces/good", "path": "../../etc/passwd"},
        http=("GET", "/workspaces/good/files:stat?path=../../etc/passwd"),
        code="INVALID_ARGUMENT",
        status=400,
        reason="PATH_OUTSIDE",
    ),
    "absent file": Case(
        stub=FILES,
        rpc="StatFile",
        request={"name": "workspaces/good", "path": "none"},
        http=("GET", "/workspaces/good/files:stat?path=none"),
        code="NOT_FOUND",
        status=404,
        reason="FILE_NOT_FOUND",
    ),
    "nothing to commit": Case(
        stub=SOURCES,
        rpc="CreateCommit",
        request={"parent": "workspaces/good", "commit": {"message": "Nothing"}},
        http=("POST", "/workspaces/good/git/commit"),
        body={"commit": {"message": "Nothing"}},
        code="FAILED_PRECONDITION",
        status=409,
        reason="NOTHING_TO_COMMIT",
    ),
    "wrong expected head": Case(
        stub=SOURCES,
        rpc="CreateCommit",
        request={
            "parent": "workspaces/good",
            "commit": {"message": "Nothing"},
            "expectedHead": "0" * 40,
        },
        http=("POST", "/workspaces/good/git/commit"),
        body={"commit": {"message": "Nothing"}, "expectedHead": "0" * 40},
        code="ABORTED",
        status=409,
        reason="HEAD_MOVED",
    ),
    "a page token that is not ours": Case(
        stub=SPACES,
        rpc="ListWorkspaces",
        request={"pageToken": "made-up"},
        http=("GET", "/workspaces?page_token=made-up"),
        code="INVALID_ARGUMENT",
        status=400,
        reason="PAGE_TOKEN_INVALID",
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def good(suite: Suite) -> AsyncIterator[str]:
    """A workspace `good` of an empty repository, made with the request id ID."""
    async with suite.client() as cove, channel_of(suite) as channel:
        request = pb.CreateWorkspaceRequest(workspace_id="good", request_id=ID)
        await SPACES(channel).CreateWorkspace(request, metadata=metadata_of(suite))
        yield "good"
        await cove.workspaces.named("good").delete(force=True)


def channel_of(suite: Suite) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(suite.grpc)


def metadata_of(suite: Suite) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {suite.token}"),)


async def by_grpc(suite: Suite, case: Case, request: Any) -> status_pb2.Status:
    async with channel_of(suite) as channel:
        rpc = getattr(case.stub(channel), case.rpc)
        message = getattr(pb, f"{case.rpc}Request")()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rpc(json_format.ParseDict(request, message), metadata=metadata_of(suite))
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # An aio error has all it reads.
    assert status is not None, caught.value
    return status


def told(status: dict[str, Any]) -> dict[str, Any]:
    """What of a status must be alike, whichever way it came."""
    details = {detail["@type"].rpartition(".")[2]: detail for detail in status["details"]}
    violations = details.get("BadRequest", {}).get("fieldViolations", [])
    return {
        "code": status["code"],
        "message": status["message"],
        "reason": details["ErrorInfo"]["reason"],
        "domain": details["ErrorInfo"]["domain"],
        "fields": [violation.get("field", "") for violation in violations],
        "remedy": details["LocalizedMessage"]["message"],
    }


def filled(value: Any, repository: Path) -> Any:
    return json.loads(json.dumps(value).replace("{repository}", str(repository)))


async def names(http: httpx.AsyncClient) -> list[str]:
    listed = (await http.get("/workspaces?show_deleted=true")).json()
    return [workspace["name"] for workspace in listed.get("workspaces", [])]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_bad_input_is_told_alike_and_changes_nothing(
    suite: Suite, http: httpx.AsyncClient, good: str, repository: Path, case: Case
) -> None:
    status = await by_grpc(suite, case, filled(case.request, repository))
    over_grpc = told(json_format.MessageToDict(status))
    method, path = case.http
    answer = await http.request(
        method, path, json=filled(case.body, repository), headers=case.headers
    )
    over_http = told(answer.json())
    assert over_grpc == over_http
    assert over_grpc["code"] == getattr(grpc.StatusCode, case.code).value[0]
    assert over_grpc["reason"] == f"ERROR_REASON_{case.reason}"
    assert over_grpc["domain"] == "cove"
    assert over_grpc["fields"] == case.fields or not case.fields
    assert over_grpc["remedy"]
    assert answer.status_code == case.status
    assert await names(http) == ["workspaces/good"]


async def test_a_wrong_token_is_refused_everywhere(suite: Suite, http: httpx.AsyncClient) -> None:
    for token in ("", "Bearer", "Bearer wrong", f"Basic {suite.token}", f"Bearer {suite.token}x"):
        answer = await http.get("/workspaces", headers={"authorization": token})
        assert answer.status_code == 401
        assert told(answer.json())["reason"] == "ERROR_REASON_UNAUTHENTICATED"
        async with channel_of(suite) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await SPACES(channel).ListWorkspaces(
                    pb.ListWorkspacesRequest(), metadata=(("authorization", token),)
                )
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"spec": ', "MALFORMED_JSON"),
        (b"[]", "MALFORMED_JSON"),
        (b"\xff\xfe", "MALFORMED_JSON"),
        (b'{"spec": {"argv": ["true"]}, "surprise": 1}', "INVALID_FIELD"),
        (b'{"spec": {"argv": "true"}}', "INVALID_FIELD"),
    ],
)
async def test_bodies_that_are_not_the_message_are_refused(
    http: httpx.AsyncClient, good: str, body: bytes, reason: str
) -> None:
    answer = await http.post("/workspaces/good/execute", content=body)
    assert answer.status_code == 400, answer.text
    assert told(answer.json())["reason"] in {
        f"ERROR_REASON_{reason}",
        "ERROR_REASON_MALFORMED_JSON",
    }


async def test_messages_that_are_too_large_are_refused(
    suite: Suite, http: httpx.AsyncClient, good: str
) -> None:
    huge = {"spec": {"argv": ["true", "x" * (6 << 20)]}}
    answer = await http.post("/workspaces/good/execute", json=huge)
    assert answer.status_code == 413
    assert told(answer.json())["reason"] == "ERROR_REASON_MESSAGE_TOO_LARGE"
    async with channel_of(suite) as channel:
        request = json_format.ParseDict({"name": "workspaces/good", **huge}, pb.ExecuteRequest())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await RUNS(channel).Execute(request, metadata=metadata_of(suite))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_unknown_path_or_method_is_told(http: httpx.AsyncClient) -> None:
    answer = await http.get("/nowhere")
    assert answer.status_code == 404
    assert told(answer.json())["reason"] == "ERROR_REASON_ROUTE_NOT_FOUND"
    answer = await http.request("PUT", "/workspaces")
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]
