"""Every RPC, by gRPC and by HTTP, asked by callers of all kinds.

The RPCs are those of the descriptors, so that one is covered the day it is added.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Final

import grpc
import httpx
import pytest
from google.protobuf.descriptor import MethodDescriptor

from cove.options.v1.options_pb2 import Role
from gateway.identity import secret
from tests.access.requests import (
    METHODS,
    Http,
    access,
    names_a_workspace,
    request,
    routed,
    rules_of,
)
from tests.access.stage import MISSING, SHARED, THERE, Answer, Stage, bearer

UNKNOWN: Final = ("", "nonsense", "cove_" + "t" * 43, "expired", "revoked", "never")
"""What is shown: nothing, what has not even the form, a wrong one of the file, and such as have
ended or never were."""
NEVER: Final = secret.new()
DENIED: Final = grpc.StatusCode.PERMISSION_DENIED
UPGRADED: Final = "Attach"
"""Over HTTP it wants a WebSocket before it looks at more than who calls."""
ROUTED: Final = list(routed())
NAMING: Final = [method for method in METHODS if names_a_workspace(method)]
READ: Final = [method for method in METHODS if access(method).role == Role.ROLE_READER]
ABOVE: Final = [method for method in METHODS if access(method).role > Role.ROLE_READER]


def named(methods: list[MethodDescriptor]) -> pytest.MarkDecorator:
    ids = [f"{each.containing_service.name}.{each.name}" for each in methods]
    return pytest.mark.parametrize("method", methods, ids=ids)


def shown(stage: Stage, what: str) -> str:
    return NEVER if what == "never" else stage.secrets.get(what, what)


def like(answer: Answer, name: str) -> str:
    """All that is told, less the name that was asked for."""
    told: bytes = answer.status.SerializeToString().replace(name.encode(), b"...")
    return told.hex()


def test_there_are_such_rpcs() -> None:
    assert min(len(NAMING), len(READ), len(ABOVE), len(ROUTED)) > 10
    assert len(READ) + len(ABOVE) == len(METHODS)


@named(METHODS)
async def test_nobody_who_is_not_known_gets_anything(
    stage: Stage, method: MethodDescriptor
) -> None:
    asked = request(method, THERE)
    answers = await asyncio.gather(
        *(stage.call(method, asked, shown(stage, what)) for what in UNKNOWN)
    )
    assert {each.code for each in answers} == {grpc.StatusCode.UNAUTHENTICATED}
    assert len({like(each, THERE) for each in answers}) == 1


@named(ABOVE)
async def test_a_role_that_is_too_low_is_not_enough(stage: Stage, method: MethodDescriptor) -> None:
    asked = request(method, THERE)
    roles = [name for name in ("reader", "writer") if _role(name) < access(method).role]
    for who in roles:
        answer = await stage.call(method, asked, stage.secrets[f"acme {who}"])
        assert (answer.code, answer.reason) == (DENIED, "PERMISSION_DENIED")


@named(NAMING)
async def test_a_role_that_is_enough_gets_to_the_resource(
    stage: Stage, method: MethodDescriptor
) -> None:
    who = Role.Name(access(method).role).removeprefix("ROLE_").lower()
    answer = await stage.call(method, request(method, MISSING), stage.secrets[f"acme {who}"])
    assert answer.reason not in ("UNAUTHENTICATED", "PERMISSION_DENIED", "SHARE_LIMITED")


@named(NAMING)
async def test_what_is_another_tenants_is_as_if_it_were_not_there(
    stage: Stage, method: MethodDescriptor
) -> None:
    told = []
    for name in (THERE, MISSING):
        answer = await stage.call(method, request(method, name), stage.secrets["other admin"])
        told.append((answer.code, like(answer, name)))
        assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "WORKSPACE_NOT_FOUND")
    assert told[0] == told[1]


@named(METHODS)
async def test_a_share_reaches_its_workspace_and_nothing_else(
    stage: Stage, method: MethodDescriptor
) -> None:
    limited = (DENIED, "SHARE_LIMITED")
    for who in ("reader", "writer"):
        shown = stage.secrets[f"share {who}"]
        enough = access(method).role <= _role(who)
        told = set()
        for name in (THERE, MISSING):
            answer = await stage.call(method, request(method, name), shown)
            assert answer.reason == ("SHARE_LIMITED" if enough else "PERMISSION_DENIED")
            told.add(like(answer, name))
        assert len(told) == 1
        answer = await stage.call(method, request(method, SHARED), shown)
        if not enough:
            assert (answer.code, answer.reason) == (DENIED, "PERMISSION_DENIED")
        elif access(method).unshared or not names_a_workspace(method):
            assert (answer.code, answer.reason) == limited
        else:
            assert answer.code is not DENIED
            assert answer.reason not in ("UNAUTHENTICATED", "WORKSPACE_NOT_FOUND")


@named(ROUTED)
async def test_over_http_it_is_the_same(stage: Stage, method: MethodDescriptor) -> None:
    async with stage.web() as web:
        asked = Http(method, request(method, THERE))
        for what in UNKNOWN:
            answer = await _over_http(web, asked, shown(stage, what))
            assert answer.status_code == 401, answer.text
            assert answer.headers["content-type"] == "application/json"
        if method.name == UPGRADED:
            return
        if access(method).role > Role.ROLE_READER:
            answer = await _over_http(web, asked, stage.secrets["acme reader"])
            assert (answer.status_code, _reason(answer)) == (403, "PERMISSION_DENIED")
        else:
            answer = await _over_http(web, asked, stage.secrets["share reader"])
            assert (answer.status_code, _reason(answer)) == (403, "SHARE_LIMITED")
        if not names_a_workspace(method):
            return
        told = []
        for name in (THERE, MISSING):
            asked = Http(method, request(method, name))
            answer = await _over_http(web, asked, stage.secrets["other admin"])
            assert (answer.status_code, _reason(answer)) == (404, "WORKSPACE_NOT_FOUND")
            told.append(answer.text.replace(name, "..."))
        assert told[0] == told[1]


async def test_ids_of_others_are_free_and_nothing_tells_of_them(stage: Stage) -> None:
    """Both tenants may have the same ids; neither is told of the other's."""
    create = next(each for each in METHODS if each.name == "CreateToken")
    for tenant in ("acme", "other"):
        asked = request(create, THERE)
        asked.token.ClearField("workspace")
        asked.token_id = "alike"
        for expected in (grpc.StatusCode.OK, grpc.StatusCode.ALREADY_EXISTS):
            answer = await stage.call(create, asked, stage.secrets[f"{tenant} admin"])
            assert answer.code is expected
    for tenant in ("acme", "other"):
        await stage.revoke("tokens/alike", tenant)


def _role(name: str) -> int:
    return {"reader": Role.ROLE_READER, "writer": Role.ROLE_WRITER}[name]


def _reason(answer: httpx.Response) -> str:
    details = json.loads(answer.text)["details"]
    found = next(each["reason"] for each in details if "reason" in each)
    return str(found).removeprefix("ERROR_REASON_")


async def _over_http(web: httpx.AsyncClient, asked: Http, secret: str) -> httpx.Response:
    headers = dict(bearer(secret))
    body = {"content": b"x"} if asked.raw else {"json": asked.body}
    return await web.request(
        asked.verb.upper(), asked.path, params=asked.query, headers=headers, **body
    )


def test_every_field_that_names_a_workspace_says_so_by_its_rule() -> None:
    """A share is held to such fields: one without the rule would be a way out of it."""
    names = {"name", "names", "parent", "workspace", "workspaces"}
    found = {
        field.full_name
        for method in METHODS
        for field in _texts(method.input_type, set())
        if field.name in names and not _rule(field).startswith("^workspaces/")
    }
    assert found == OTHERWISE


OTHERWISE: Final = {
    "cove.executor.v1.Execution.name",
    "cove.gateway.v1.RevokeTokenRequest.name",
    "cove.git.v1.Signature.name",
    "cove.registry.v1.Token.name",
}
"""Fields of such names that are about something else, or that nobody reads in a request."""


def _texts(message: Any, seen: set[str]) -> Iterator[Any]:
    if message.full_name in seen:
        return
    seen.add(message.full_name)
    for field in message.fields:
        if field.message_type is not None:
            yield from _texts(field.message_type, seen)
        elif field.type == field.TYPE_STRING:
            yield field


def _rule(field: Any) -> str:
    rules = rules_of(field)
    pattern = rules.repeated.items.string.pattern if field.is_repeated else rules.string.pattern
    return str(pattern)
