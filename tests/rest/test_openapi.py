"""The OpenAPI document: valid, up to date, and true."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from google.protobuf import json_format
from openapi_spec_validator import OpenAPIV31SpecValidator

from buf.validate import validate_pb2
from cove.errors.v1.errors_pb2 import ErrorReason
from cove.gateway.v1 import gateway_pb2
from gateway.rest.document import FILE
from gateway.rest.errors import MethodNotAllowed, RouteNotFound, status_json
from gateway.rest.routes import Match, Routes
from scripts import gen_openapi
from scripts.openapi.limits import limits_of
from servicekit import errors
from servicekit.status import to_status
from tests.rest.broken import Breaker, Broken
from tests.rest.conftest import Front
from tests.rest.test_unary import fields, reason
from tests.support.openapi import OpenApi, Operation, path_with

API = OpenApi()
BREAKER = Breaker(API)
FIXED = {"Gateway_Health", "Gateway_Readiness", "Gateway_OpenApi"}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
OF_ROUTES = [each for each in API.operations if each.id not in FIXED]


@pytest.fixture
def routes() -> Routes:
    return Routes.of(gateway_pb2.DESCRIPTOR.services_by_name.values())


def match_of(routes: Routes, operation: Operation) -> Match:
    values = {"workspace": "a", "execution": "a", "snapshot": "a", "token": "a", "path": "a/b"}
    return routes.find(operation.method, path_with(operation.path, values))


def test_it_is_valid_openapi_3_1() -> None:
    assert API.document["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(API.document).validate()


def test_no_schema_has_a_name_that_generated_clients_need() -> None:
    assert not {"Client", "File", "Request", "Response"} & set(
        API.document["components"]["schemas"]
    )


def test_it_has_the_names_that_the_contracts_own_calls_use() -> None:
    wanted = {
        "WorkspaceService_CreateWorkspace": {"workspace_id"},
        "ExecutionService_StartExecution": {"execution_id"},
        "ExecutionService_ReadOutput": {"batched", "from_offset", "follow"},
    }
    for operation in API.operations:
        given = [API.resolved(each) for each in operation.said["parameters"]]
        assert wanted.get(operation.id, set()) <= {each["name"] for each in given}


def test_it_is_up_to_date_byte_for_byte() -> None:
    assert gen_openapi.document_text() == FILE.read_text(), "run `make protos`"


def test_every_route_is_in_it_and_nothing_else_is(routes: Routes) -> None:
    found = [match_of(routes, operation).route for operation in OF_ROUTES]
    assert sorted(map(id, found)) == sorted(map(id, routes))
    for operation, route in zip(OF_ROUTES, found, strict=True):
        name = f"{route.rpc.containing_service.name}_{route.rpc.name}"
        assert operation.id == name + (str(route.binding + 1) if route.binding else "")


def test_what_it_does_not_have_is_no_route(routes: Routes) -> None:
    known = {(each.method, each.path) for each in API.operations}
    for path in API.document["paths"]:
        for method in METHODS:
            if (method, path) not in known:
                with pytest.raises((MethodNotAllowed, RouteNotFound)):
                    match_of(routes, Operation(method, path, {}))


async def test_the_paths_without_an_rpc_answer_to_what_it_says_and_to_nothing_else(
    front: Front,
) -> None:
    for operation in API.operations:
        if operation.id in FIXED:
            assert (await front.client.request(operation.method, operation.path)).is_success
    for method in METHODS[1:]:
        for path in ("/healthz", "/readyz", "/openapi.json"):
            answer = await front.client.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_it_is_served_with_an_etag(front: Front) -> None:
    answer = await front.client.get("/openapi.json")
    assert answer.content == FILE.read_bytes()
    assert answer.headers["content-type"] == "application/json"
    known = {"if-none-match": answer.headers["etag"]}
    again = await front.client.get("/openapi.json", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    head = await front.client.head("/openapi.json")
    assert head.headers["content-length"] == str(len(answer.content))


async def test_only_what_it_calls_public_answers_to_a_stranger(front: Front) -> None:
    async with httpx.AsyncClient(base_url=f"http://{front.address}", timeout=30) as stranger:
        for operation in API.operations:
            values = {
                "workspace": "a",
                "execution": "a",
                "snapshot": "a",
                "token": "a",
                "path": "a",
            }
            path = path_with(operation.path, values)
            answer = await stranger.request(operation.method, path)
            public = operation.said.get("security") == []
            assert (answer.status_code == 401) == (not public), operation.id
            API.check_answer(answer)


def test_every_detail_that_a_failure_can_have_is_in_it() -> None:
    class Everything(errors.Unavailable):
        reason = ErrorReason.ERROR_REASON_SHUTTING_DOWN

    error = Everything(
        "a failure",
        remedy="do something",
        violations=[errors.Violation("spec.argv", "empty")],
        preconditions=[errors.Precondition("STATE", "workspaces/a", "it is gone")],
        quotas=[errors.Quota("tenants/a", "too many")],
        name="workspaces/a",
    )
    told = status_json(to_status(error))
    assert len(told["details"]) == len(API.document["components"]["schemas"]["Status"]
        ["properties"]["details"]["items"]["oneOf"])  # fmt: skip
    API.check({"$ref": "#/components/schemas/Status"}, told)


@pytest.mark.parametrize(
    "rule", [{"string": {"prefix": "a"}}, {"int32": {"in": [1]}}, {"enum": {"not_in": [0, 1]}}]
)
def test_a_rule_that_has_no_form_in_it_stops_the_generator(rule: dict[str, Any]) -> None:
    rules = json_format.ParseDict(rule, validate_pb2.FieldRules())
    with pytest.raises(SystemExit, match="no form in OpenAPI"):
        limits_of(rules, "a.field", textual=False)


@dataclass(frozen=True)
class Wrong:
    """A request that breaks one limit of an operation."""

    at: str
    limit: str
    values: dict[str, str] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None


def wrongs(operation: Operation, route: Any) -> Iterator[Wrong]:
    for parameter in operation.said["parameters"]:
        said = API.resolved(parameter)
        name = said["name"]
        for each in BREAKER.broken(said["schema"], name, types=False):
            wrong = as_wrong(said["in"], name, each, route)
            if wrong is not None:
                yield wrong
    content = operation.said.get("requestBody", {}).get("content", {})
    if schema := content.get("application/json", {}).get("schema"):
        outer = "" if route.body == "*" else f"{route.body}."
        for each in BREAKER.broken(schema):
            yield Wrong(outer + snake(each.at), each.limit, body=each.value)


def as_wrong(place: str, name: str, broken: Broken, route: Any) -> Wrong | None:
    value = str(broken.value)
    match place:
        case "path":
            variable = route.template.fields[-1 if name == "path" else 0]
            return Wrong(variable, broken.limit, values={name: value})
        case "query":
            given = broken.value if isinstance(broken.value, list) else value
            return Wrong(snake(name), broken.limit, query={name: given})
    names = {"Idempotency-Key": "request_id"}
    return Wrong(names.get(name, name), broken.limit, headers={name: value})


HANDSHAKE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "sec-websocket-version": "13",
}
INSIDE = re.compile(r"^(header|open)\.")
"""Where in a request the fields of a query may be."""


def snake(name: str) -> str:
    return re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name)


async def violated(front: Front, operation: Operation, wrong: Wrong) -> list[str]:
    """The fields that are refused, without what of lists and maps they are."""
    body = wrong.body
    content = operation.said.get("requestBody", {}).get("content", {})
    if body is None and "application/json" in content:
        body = BREAKER.sample(content["application/json"]["schema"])
    values = {
        "workspace": "a",
        "execution": "a",
        "snapshot": "a",
        "token": "a",
        "path": "a",
    } | wrong.values
    quoted = {name: quote(value, safe="") for name, value in values.items()}
    answer = await front.client.request(
        operation.method,
        path_with(operation.path, quoted),
        params=wrong.query,
        headers=wrong.headers | (HANDSHAKE if "101" in operation.said["responses"] else {}),
        content=None if body is None else json.dumps(body),
    )
    if answer.status_code != 400 or reason(answer.json()) != "INVALID_FIELD":
        return []
    API.check_answer(answer)
    named = [re.sub(r"\[[^]]*\]", "", each) for each in fields(answer.json())]
    return [INSIDE.sub("", each) for each in named]


@pytest.mark.parametrize("operation", OF_ROUTES, ids=lambda each: each.id)
async def test_every_limit_that_it_states_is_enforced(
    front: Front, routes: Routes, operation: Operation
) -> None:
    route = match_of(routes, operation).route
    found = list(wrongs(operation, route))
    if any(wrong.body is not None for wrong in found):
        assert await violated(front, operation, Wrong("", "")) == []
    for wrong in found:
        refused = await violated(front, operation, wrong)
        at = INSIDE.sub("", wrong.at)
        assert any(f"{each}.".startswith(f"{at}.") for each in refused), (wrong, refused)
