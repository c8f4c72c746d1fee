"""Every reason of docs/errors.md, provoked over gRPC and over HTTP, and compared."""

import json
import math
import os
import re
from typing import Any, Final

import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2

from cove import status as sdk
from cove.errors.v1.errors_pb2 import ErrorReason
from scripts.reasons import BEHIND as NOT_FOR_CALLERS
from tests.errors import (  # noqa: F401 - they fill the table.
    behind,
    commands,
    general,
    relayed,
    sources,
    workspaces,
)
from tests.errors.cases import BEHIND, CASES, GRPC, HTTP, Case
from tests.errors.doors import Refusal
from tests.errors.lost import LOST
from tests.errors.page import Promise, promises
from tests.errors.world import Try, World

NEVER: Final = {
    "UNSPECIFIED": "never sent: test_raised.py finds no failure without a reason",
    "REQUEST_IN_PROGRESS": "sent no more: a request that comes again waits for the first",
}
"""What cannot be provoked, and why."""
NO_HTTP: Final = {
    "UPLOAD_INCOMPLETE": "the connection breaks off, so that nobody is there to be told",
    "PORT_NOT_LISTENING": "ports are forwarded over gRPC only",
    "PORT_LIMIT": "ports are forwarded over gRPC only",
    "PORT_RESET": "ports are forwarded over gRPC only",
}
NO_GRPC: Final = {
    "MALFORMED_JSON": "there is no JSON",
    "ROUTE_NOT_FOUND": "there are no paths: gRPC itself says UNIMPLEMENTED",
}
FIELDS: Final = {"INVALID_ARGUMENT"}
"""Codes with BadRequest."""
LIMITS: Final = {"QUOTA_EXCEEDED", "RATE_LIMITED", "AUTHENTICATION_LIMIT", "DISK_FULL"}
"""Reasons with QuotaFailure."""
STATES: Final = {"WORKSPACE_NOT_READY", "WORKSPACE_SUSPENDED", "WORKSPACE_BUSY"}
"""Reasons with PreconditionFailure."""
TRACES: Final = ("Traceback", 'File "', "site-packages", "/services/", "/gateway/")
TOO_LARGE, TOO_MANY = 413, 429

_DOOR: Final = re.compile(r"(?<=[a-z0-9])-(grpc|http)\b")
_NUMBERS: Final = re.compile(
    r"\b[0-9a-f-]{32,40}\b|\b[a-z2-7]{16}\b|\bgateway-[0-9a-f]{8}-\d+\b|(?<=127\.0\.0\.1:)\d+"
)


def test_every_reason_is_provoked_or_it_is_said_why_not() -> None:
    names = {each.removeprefix("ERROR_REASON_") for each in ErrorReason.keys()}  # noqa: SIM118
    assert set(promises()) == names
    assert CASES.keys() | NEVER.keys() | LOST.keys() == names
    assert not CASES.keys() & (NEVER.keys() | LOST.keys())


def test_it_is_said_why_one_door_is_enough() -> None:
    doors = {name: set(case.doors) for name, case in CASES.items()}
    assert {name for name, found in doors.items() if found == {GRPC}} == NO_HTTP.keys()
    assert {name for name, found in doors.items() if found == {HTTP}} == NO_GRPC.keys()
    assert {name for name, found in doors.items() if found == {BEHIND}} == NOT_FOR_CALLERS


@pytest.mark.parametrize(
    "case", [pytest.param(each, id=each.reason, marks=each.marks) for each in CASES.values()]
)
async def test_a_reason_is_told_alike_at_both_doors(world: World, case: Case) -> None:
    if case.root and os.getuid() != 0:
        pytest.skip("limits of control groups need root")
    told: dict[str, Refusal] = {}
    if BEHIND in case.doors:
        told[BEHIND] = await case.provoke(Try(world=world, door=world.doors.grpc))
    for door in world.doors:
        if door.name in case.doors:
            told[door.name] = await case.provoke(Try(world=world, door=door))
    for refusal in told.values():
        check(world, case, refusal)
    if len(told) > 1:
        assert plain(told[GRPC]) == plain(told[HTTP])


def check(world: World, case: Case, refusal: Refusal) -> None:
    """All that one door tells is what the page promises, and nothing of the host."""
    promised = promises()[case.reason]
    assert (refusal.reason, refusal.code.name) == (case.reason, case.code), refusal.text
    assert refusal.info.domain == "cove"
    assert refusal.status.message
    assert refusal.remedy
    assert promised.always <= refusal.metadata.keys() <= promised.keys
    check_details(refusal, promised)
    private = world.private + (world.tight.private if world.tight else ())
    for text in (*private, *TRACES):
        assert not text or text not in refusal.text, refusal.text
    if isinstance(refusal.http, int):
        check_http(refusal, promised)
    if refusal.error:
        check_client(refusal)


def check_details(refusal: Refusal, promised: Promise) -> None:
    bad = refusal.detail(error_details_pb2.BadRequest)
    assert bool(bad) == (refusal.code.name in FIELDS)
    quota = refusal.detail(error_details_pb2.QuotaFailure)
    assert bool(quota) == (refusal.reason in LIMITS)
    state = refusal.detail(error_details_pb2.PreconditionFailure)
    assert bool(state) == (refusal.reason in STATES)
    for each in bad.field_violations[:1] if bad else ():
        assert refusal.status.message in (f"{each.field}: {each.description}", each.description)
    for each in bad.field_violations if bad else ():
        assert each.description
        assert each.field
    for each in (*(quota.violations if quota else ()), *(state.violations if state else ())):
        assert each.subject
        assert each.description
    if refusal.retry_after is not None:
        assert refusal.retry_after > 0
        assert promised.again in ("yes", "later", "after a read")
    assert promised.again
    if refusal.code.name == "UNAVAILABLE":
        assert refusal.retry_after


def check_http(refusal: Refusal, promised: Promise) -> None:
    headers = refusal.headers
    assert refusal.http == promised.http[refusal.code.name]
    assert headers["content-type"].startswith("application/json")
    assert headers["x-request-id"]
    assert ("www-authenticate" in headers) == (refusal.code.name == "UNAUTHENTICATED")
    waits = refusal.retry_after is not None or refusal.http == TOO_MANY
    assert ("retry-after" in headers) == waits
    if refusal.retry_after is not None:
        assert int(headers["retry-after"]) == max(1, math.ceil(refusal.retry_after))


def check_client(refusal: Refusal) -> None:
    """What the Python client makes of it."""
    assert refusal.error
    error = sdk.of(refusal.error, "an address")
    assert type(error).code is refusal.code
    assert error.reason == f"ERROR_REASON_{refusal.reason}"
    assert (error.message, error.metadata) == (refusal.status.message, refusal.metadata)
    assert error.retry_after == refusal.retry_after
    assert error.request_id == refusal.headers.get("x-request-id", "")
    assert error.remedy
    if refusal.reason != "UNAUTHENTICATED":  # Of which the client knows better.
        assert error.remedy == refusal.remedy
    bad = refusal.detail(error_details_pb2.BadRequest)
    fields = [(each.field, each.description) for each in bad.field_violations] if bad else []
    assert [(each.field, each.problem) for each in error.fields] == fields


def plain(refusal: Refusal) -> Any:
    """All that is told, without what differs from call to call."""
    said = json_format.MessageToDict(refusal.status)
    for detail in said["details"]:
        detail.pop("retryDelay", "")
    return json.loads(_NUMBERS.sub("<number>", _DOOR.sub("", json.dumps(said))))
