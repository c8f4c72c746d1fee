"""Requests and answers of unary RPCs over HTTP."""

import json
from typing import Any

import pytest

from tests.rest.conftest import Front

SPEC = {"spec": {"repository": "file:///srv/app.git", "revision": "main"}}
UUID = "6f8c1a9e-3a54-4c1b-9a51-6a3a0f2f5b60"


def reason(body: Any) -> str:
    (info,) = [each for each in body["details"] if each["@type"].endswith("rpc.ErrorInfo")]
    return str(info["reason"].removeprefix("ERROR_REASON_"))


def fields(body: Any) -> list[str]:
    bad = [each for each in body["details"] if each["@type"].endswith("rpc.BadRequest")]
    return [violation.get("field", "") for violation in bad[0]["fieldViolations"]]


async def test_create_answers_201_with_the_workspace_flat_and_where_it_is(front: Front) -> None:
    answer = await front.client.post("/workspaces?workspace_id=demo", json=SPEC)
    assert answer.status_code == 201
    assert answer.headers["location"] == "/workspaces/demo"
    assert answer.headers["etag"] == '"1"'
    assert answer.json() == {
        "name": "workspaces/demo",
        "state": "STATE_READY",
        "etag": "1",
        "spec": SPEC["spec"],
    }


async def test_create_that_does_not_wait_answers_202(front: Front) -> None:
    path = "/workspaces?workspaceId=demo&returnWhen=RETURN_WHEN_ACCEPTED"
    answer = await front.client.post(path, json=SPEC)
    assert answer.status_code == 202
    assert answer.headers["location"] == "/workspaces/demo"


async def test_credentials_come_in_the_body_of_a_create_by_its_verb(front: Front) -> None:
    body = {
        "workspaceId": "demo",
        "workspace": SPEC,
        "credentials": {"https": {"username": "ada", "password": "secret"}},
    }
    answer = await front.client.post("/workspaces:create", json=body)
    assert answer.status_code == 201
    assert answer.headers["location"] == "/workspaces/demo"
    assert answer.json()["name"] == "workspaces/demo"
    assert front.seen.requests[-1].credentials.https.password == "secret"


async def test_start_of_an_execution_answers_201(front: Front) -> None:
    answer = await front.client.post(
        "/workspaces/demo/executions?execution_id=build-1", json={"spec": {"script": "make"}}
    )
    assert answer.status_code == 201
    assert answer.headers["location"] == "/workspaces/demo/executions/build-1"
    assert front.seen.requests[-1].execution.spec.script == "make"


async def test_execute_answers_as_the_contract_shows(front: Front) -> None:
    spec = {"spec": {"argv": ["sh", "-c", "echo hi"], "timeout": "60s"}}
    answer = await front.client.post("/workspaces/demo/execute", json=spec)
    assert answer.status_code == 200
    assert answer.json() == {
        "execution": {"exit": {"code": 0}},
        "stdout": {"text": "hi\n"},
        "stderr": {"text": ""},
    }
    request = front.seen.requests[-1]
    assert request.name == "workspaces/demo"
    assert request.spec.timeout.seconds == 60


async def test_a_body_without_content_type_or_in_proto_names_is_understood(front: Front) -> None:
    body = b'{"spec": {"argv": ["true"], "merge_stderr": true}}'
    answer = await front.client.post("/workspaces/demo/execute", content=body)
    assert answer.status_code == 200
    assert front.seen.requests[-1].spec.merge_stderr


async def test_a_verb_reaches_its_rpc(front: Front) -> None:
    path = "/workspaces/demo/executions/x:signal"
    answer = await front.client.post(path, json={"signal": "SIGNAL_TERM"})
    assert answer.status_code == 200
    assert front.seen.requests[-1].name == "workspaces/demo/executions/x"


async def test_a_query_may_be_nested_repeated_and_in_either_spelling(front: Front) -> None:
    query = "range.kind=KIND_BASE_TO_WORK&paths=a%20b&paths=c&limits.fileBytes=5&limits.lines=2"
    answer = await front.client.get(f"/workspaces/demo/git/diff?{query}")
    assert answer.status_code == 200
    request = front.seen.requests[-1]
    assert list(request.paths) == ["a b", "c"]
    assert (request.range.kind, request.limits.file_bytes, request.limits.lines) == (2, 5, 2)


async def test_a_bool_a_mask_and_a_map_get_through(front: Front) -> None:
    await front.client.post("/workspaces?workspace_id=demo", json=SPEC)
    answer = await front.client.patch(
        "/workspaces/demo?update_mask=labels,head_commit", json={"labels": {"a": "b"}}
    )
    assert answer.json()["labels"] == {"a": "b"}
    assert list(front.seen.requests[-1].update_mask.paths) == ["labels", "head_commit"]
    await front.client.get("/workspaces?showDeleted=true&page_size=7")
    assert front.seen.requests[-1].show_deleted
    assert front.seen.requests[-1].page_size == 7
    query = "filter=state%3DREADY%20AND%20labels.a%3D%22b%22&orderBy=create_time%20desc"
    await front.client.get(f"/workspaces?{query}")
    assert front.seen.requests[-1].filter == 'state=READY AND labels.a="b"'
    assert front.seen.requests[-1].order_by == "create_time desc"


@pytest.mark.parametrize(
    ("method", "path", "body", "wrong"),
    [
        ("GET", "/workspaces?page_sise=1", None, ["page_sise"]),
        ("GET", "/workspaces?page_size=x", None, ["page_size"]),
        ("GET", "/workspaces?page_size=1&pageSize=2", None, ["page_size"]),
        ("GET", "/workspaces?show_deleted=yes", None, ["show_deleted"]),
        ("GET", "/workspaces/demo?name=workspaces/other", None, ["name"]),
        ("GET", "/workspaces/demo/git/diff?range=1&range.kind=KIND_X", None, ["range"]),
        ("GET", "/workspaces/demo/git/diff?limits.lines.x=1", None, ["limits.lines.x"]),
        ("POST", "/workspaces?credentials.https.password=x", "{}", ["credentials.https.password"]),
        ("POST", "/workspaces?credentials.https.username=x", "{}", ["credentials.https.username"]),
        ("POST", "/workspaces?workspace.uid=x", "{}", ["workspace.uid"]),
        ("POST", "/workspaces/demo/execute?spec.script=x", "{}", ["spec.script"]),
        ("POST", "/workspaces/demo/execute", '{"spec": {"argv": [], "a": 1, "b": 2}}',
         ["spec.a", "spec.b"]),
        ("POST", "/workspaces/demo/execute", '{"spec": {"argv": [1]}}', ["spec.argv"]),
        ("POST", "/workspaces/demo/execute", '{"spec": {"timeout": 5}}', ["spec.timeout"]),
        ("POST", "/workspaces/demo/execute", '{"spec": []}', ["spec"]),
        ("POST", "/workspaces/demo/execute", '{"name": "workspaces/other"}', ["name"]),
        ("POST", "/workspaces?workspace_id=x", '{"spec": {"nope": 1}}', ["workspace.spec.nope"]),
        ("POST", "/workspaces/demo/git/commit",
         '{"commit": {"trailers": ["x"]}}', ["commit.trailers[0]"]),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named_and_reaches_nobody(
    front: Front, method: str, path: str, body: str | None, wrong: list[str]
) -> None:
    answer = await front.client.request(method, path, content=body)
    assert answer.status_code == 400
    assert reason(answer.json()) == "INVALID_FIELD"
    assert set(wrong) <= set(fields(answer.json()))
    assert front.seen.requests == []


async def test_rules_of_the_proto_are_told_as_over_grpc(front: Front) -> None:
    answer = await front.client.post("/workspaces/demo/execute", json={"spec": {}})
    assert answer.status_code == 400
    assert answer.json()["code"] == 3
    assert reason(answer.json()) == "INVALID_FIELD"
    assert fields(answer.json()) == ["spec"]


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'"x"', b"\xff", b"{'a': 1}", b"nul", b'{"a": NaN}', b'{"a": 1, "a": 2}',
     b'{"spec":' * 100_000],
)  # fmt: skip
async def test_malformed_json_is_told_as_that(front: Front, body: bytes) -> None:
    answer = await front.client.post("/workspaces/demo/execute", content=body)
    assert answer.status_code == 400
    assert reason(answer.json()) == "MALFORMED_JSON"
    assert front.seen.requests == []


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/workspaces/", "/workspaces/demo:nothing", "/workspaces/a%2Fb",
             "/workspaces/%zz", "/workspaces/demo/executions/x/y"],
)  # fmt: skip
async def test_an_unknown_path_is_told_as_that(front: Front, path: str) -> None:
    answer = await front.client.get(path)
    assert answer.status_code == 404
    assert reason(answer.json()) == "ROUTE_NOT_FOUND"


async def test_another_method_is_405_and_says_which_there_are(front: Front) -> None:
    answer = await front.client.put("/workspaces/demo")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "DELETE, GET, HEAD, PATCH"
    assert reason(answer.json()) == "ROUTE_NOT_FOUND"


async def test_failures_have_the_code_reason_metadata_and_remedy_of_grpc(front: Front) -> None:
    answer = await front.client.get("/workspaces/demo")
    assert answer.status_code == 404
    body = answer.json()
    assert (body["code"], body["message"]) == (5, "no such workspace")
    kinds = {each["@type"].rpartition(".")[2] for each in body["details"]}
    assert {"ErrorInfo", "LocalizedMessage"} <= kinds
    assert body["details"][0]["metadata"] == {"name": "workspaces/demo"}


async def test_codes_of_http_follow_those_of_grpc(front: Front) -> None:
    await front.client.post("/workspaces?workspace_id=demo", json=SPEC)
    taken = await front.client.post("/workspaces?workspace_id=demo", json=SPEC)
    assert (taken.status_code, reason(taken.json())) == (409, "WORKSPACE_EXISTS")
    full = await front.client.get("/workspaces/demo/git/status")
    assert (full.status_code, reason(full.json())) == (429, "DISK_FULL")
    assert int(full.headers["retry-after"]) > 0
    away = await front.client.get("/workspaces/demo/git/branches")
    assert (away.status_code, reason(away.json())) == (503, "SERVICE_UNAVAILABLE")
    assert int(away.headers["retry-after"]) > 0
    refused = await front.client.post("/workspaces/demo/git/push")
    assert (refused.status_code, reason(refused.json())) == (409, "NON_FAST_FORWARD")


async def test_a_merge_is_previewed_and_refused_by_its_conflicts(front: Front) -> None:
    body = {"target": "main", "strategy": "MERGE_STRATEGY_SQUASH"}
    seen = await front.client.post("/workspaces/demo/git/merge:preview", json=body)
    assert seen.json() == {"conflicts": [{"rawPath": "/w==", "kind": "KIND_MODIFY_DELETE"}]}
    assert front.seen.requests[-1].target == "main"
    headers = {"idempotency-key": UUID}
    refused = await front.client.post("/workspaces/demo/git/merge", json=body, headers=headers)
    assert (refused.status_code, reason(refused.json())) == (409, "MERGE_CONFLICT")
    assert front.seen.requests[-1].request_id == UUID
    wrong = await front.client.post("/workspaces/demo/git/merge", json={"strategy": 99})
    assert (wrong.status_code, fields(wrong.json())) == (400, ["strategy"])


async def test_a_bug_inside_tells_the_caller_only_the_correlation_id(front: Front) -> None:
    answer = await front.client.get("/capabilities", headers={"x-request-id": "abc"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["details"][0]["metadata"] == {"request_id": "abc"}


@pytest.mark.parametrize("token", ["", "Bearer wrong", "Bearer t\xf6ken", "Basic a-token"])
async def test_a_wrong_token_is_401(front: Front, token: str) -> None:
    headers = [(b"authorization", token.encode("latin-1"))]
    answer = await front.client.get("/workspaces", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert reason(answer.json()) == "UNAUTHENTICATED"


async def test_a_caller_cannot_say_who_it_is_to_those_behind(front: Front) -> None:
    headers = {"authorization": "", "cove-principal": "root", "cove-tenant": "other"}
    answer = await front.client.get("/workspaces", headers=headers)
    assert answer.status_code == 401


async def test_the_correlation_id_is_taken_passed_on_and_returned(front: Front) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = await front.client.get(
        "/workspaces", headers={"x-request-id": "my-id", "traceparent": trace}
    )
    assert answer.headers["x-request-id"] == "my-id"
    assert answer.headers["traceparent"] == trace
    assert front.seen.correlation_ids == ["my-id"]


async def test_a_bad_correlation_id_is_replaced_and_failures_carry_one_too(front: Front) -> None:
    answer = await front.client.get("/nothing", headers={"x-request-id": "a b"})
    assert len(answer.headers["x-request-id"]) == 32


async def test_the_idempotency_key_is_the_request_id(front: Front) -> None:
    headers = {"idempotency-key": UUID}
    await front.client.post("/workspaces?workspace_id=demo", json=SPEC, headers=headers)
    assert front.seen.requests[-1].request_id == UUID


async def test_an_idempotency_key_that_is_no_uuid_or_not_the_request_id_is_refused(
    front: Front,
) -> None:
    no_uuid = await front.client.post(
        "/workspaces?workspace_id=demo", json=SPEC, headers={"idempotency-key": "x"}
    )
    assert (no_uuid.status_code, fields(no_uuid.json())) == (400, ["request_id"])
    other = await front.client.post(
        f"/workspaces?request_id={UUID}", json=SPEC, headers={"idempotency-key": "x"}
    )
    assert (other.status_code, fields(other.json())) == (400, ["request_id"])
    for method, path in (("POST", "/workspaces"), ("PUT", "/workspaces/demo/files/a")):
        empty = await front.client.request(method, path, headers={"idempotency-key": ""})
        assert (empty.status_code, fields(empty.json())) == (400, ["Idempotency-Key"])
    assert front.seen.requests == []


async def test_if_match_guards_update_and_delete(front: Front) -> None:
    await front.client.post("/workspaces?workspace_id=demo", json=SPEC)
    body = {"labels": {"a": "b"}}
    won = await front.client.patch("/workspaces/demo", json=body, headers={"if-match": '"1"'})
    assert (won.status_code, won.headers["etag"]) == (200, '"2"')
    lost = await front.client.patch("/workspaces/demo", json=body, headers={"if-match": '"1"'})
    assert (lost.status_code, reason(lost.json())) == (412, "ETAG_MISMATCH")
    lost = await front.client.delete("/workspaces/demo", headers={"if-match": '"1"'})
    assert lost.status_code == 412
    by_query = await front.client.delete("/workspaces/demo?etag=1")
    assert by_query.status_code == 409
    won = await front.client.delete("/workspaces/demo", headers={"if-match": '"2"'})
    assert (won.status_code, won.json()) == (200, {})


@pytest.mark.parametrize("etag", ["*", 'W/"1"', '"1", "2"', ""])
async def test_if_match_that_is_not_one_etag_is_refused(front: Front, etag: str) -> None:
    answer = await front.client.delete("/workspaces/demo", headers={"if-match": etag})
    assert (answer.status_code, fields(answer.json())) == (400, ["If-Match"])


async def test_if_match_where_nothing_is_conditional_is_refused(front: Front) -> None:
    body = {"spec": {"argv": ["true"]}}
    answer = await front.client.post(
        "/workspaces/demo/execute", json=body, headers={"if-match": '"1"'}
    )
    assert (answer.status_code, fields(answer.json())) == (400, ["If-Match"])
    assert front.seen.requests == []


async def test_a_body_over_the_limit_is_413_announced_or_not(front: Front) -> None:
    body = json.dumps({"spec": {"script": "x" * (5 << 20)}}).encode()
    announced = await front.client.post("/workspaces/demo/execute", content=body)
    assert (announced.status_code, reason(announced.json())) == (413, "MESSAGE_TOO_LARGE")

    async def parts() -> Any:
        for at in range(0, len(body), 65536):
            yield body[at : at + 65536]

    chunked = await front.client.post("/workspaces/demo/execute", content=parts())
    assert (chunked.status_code, reason(chunked.json())) == (413, "MESSAGE_TOO_LARGE")


async def test_head_is_get_without_the_body(front: Front) -> None:
    answer = await front.client.head("/workspaces")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


async def test_text_beyond_ascii_goes_both_ways(front: Front) -> None:
    body = {"commit": {"message": "Grüße 👋\n", "author": {"name": "Ada", "email": "a@b.org"}}}
    answer = await front.client.post("/workspaces/demo/git/commit", json=body)
    assert answer.status_code == 200
    assert answer.json()["commit"]["message"] == "Grüße 👋\n"
