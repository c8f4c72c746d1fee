"""A request of HTTP as the message of its RPC, and the answer back."""

import re
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import Message

from gateway.rest.errors import invalid
from gateway.rest.exchange import Exchange
from gateway.rest.fields import fill, parse, put_path, query_json
from gateway.rest.routes import Match, Route
from servicekit.errors import Violation

KEY: Final = "idempotency-key"
IF_MATCH: Final = "if-match"
IF_NONE_MATCH: Final = "if-none-match"
LAST_EVENT: Final = "last-event-id"

TAG: Final = re.compile(r'"([^"]+)"|([^",\s]+)')
MAX_PLACE: Final = 10**18 - 1

_PLACE: Final = re.compile(r"[0-9]{1,18}")


def request_of(match: Match, exchange: Exchange, body: bytes, *, conditions: bool = True) -> Any:
    """Raises `InvalidArgument`, which names everything that is wrong.

    `conditions`: whether If-Match goes into the request, and is refused where it cannot.
    """
    route = match.route
    message = route.request()
    violations: list[Violation] = []
    if route.body == "*":
        violations += fill(message, parse(body))
    elif route.body and body.strip():
        inner = getattr(message, route.body)
        inner.SetInParent()
        violations += fill(inner, parse(body), f"{route.body}.")
    elif body.strip():
        violations.append(Violation("body", "this takes no body: use the query"))
    given, wrong = query_json(route.rpc.input_type, exchange.query, given_elsewhere(match))
    violations += wrong
    violations += fill(message, given)
    for path, value in match.values.items():
        violations += put_path(message, path, value)
    violations += _put_headers(message, route, exchange.headers)
    if conditions and IF_MATCH in exchange.headers:
        violations += _put_etag(message, route.etag(), one_etag(exchange.headers[IF_MATCH]))
    if violations:
        raise invalid(violations)
    return message


def given_elsewhere(match: Match) -> Mapping[str, str]:
    """The fields that have no place in the query."""
    route = match.route
    fields = [route.body]
    if route.body == "*":
        fields = list(route.rpc.input_type.fields_by_name)
    elsewhere = {name: "goes into the body" for name in fields if name}
    return elsewhere | dict.fromkeys(match.values, "is in the path")


def answer_of(route: Route, request: Any, response: Any) -> tuple[int, Any, list[tuple[str, str]]]:
    """Code, JSON and headers of the answer of a unary RPC."""
    shown = getattr(response, route.response_body) if route.response_body else response
    headers = etag_header(shown) if route.response_body else []
    code = 200
    if route.creates:
        code = 202 if _accepted(request) else 201
        headers.append(("location", f"/{getattr(response, route.resource).name}"))
    return code, to_dict(shown), headers


def to_dict(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(message)


def etag_header(resource: Any) -> list[tuple[str, str]]:
    etag = getattr(resource, "etag", "")
    return [("etag", f'"{etag}"')] if etag else []


def one_etag(value: str) -> str:
    """The etag in a header that may hold just one; empty: it holds something else.

    A weak one, or `*`, is never the whole truth about a thing, so neither will do.
    """
    found = TAG.fullmatch(value.strip())
    etag = (found[1] or found[2]) if found else ""
    return "" if etag == "*" or etag.startswith("W/") else etag


def is_known(exchange: Exchange, etag: str) -> bool:
    """Whether the client has this content already."""
    known = exchange.headers.get(IF_NONE_MATCH, "").strip()
    return known == "*" or etag in etags(known)


def etags(header: str) -> list[str]:
    return [part.strip().removeprefix("W/").strip('"') for part in header.split(",")]


def strong_etags(header: str) -> list[str]:
    """What is equal byte for byte: a weak one says less."""
    parts = (part.strip() for part in header.split(","))
    return [part.strip('"') for part in parts if not part.startswith("W/")]


def put_key(message: Any, field: str, headers: Mapping[str, str]) -> list[Violation]:
    """An empty key is refused: who sends one believes that it protects."""
    if KEY not in headers:
        return []
    key = headers[KEY]
    if not key:
        return [Violation("Idempotency-Key", "empty")]
    if getattr(message, field) not in ("", key):
        return [Violation(field, "the header Idempotency-Key says otherwise")]
    setattr(message, field, key)
    return []


def _put_headers(message: Any, route: Route, headers: Mapping[str, str]) -> list[Violation]:
    violations: list[Violation] = []
    if field := route.request_id():
        violations += put_key(message, field, headers)
    if LAST_EVENT in headers and route.rpc.server_streaming:
        violations += _put_place(message, route.place(), headers[LAST_EVENT])
    return violations


def _put_etag(message: Any, path: str, etag: str) -> list[Violation]:
    if not path:
        return [Violation("If-Match", "this cannot be made conditional")]
    if not etag:
        return [Violation("If-Match", "not one strong etag")]
    *outer, last = path.split(".")
    for name in outer:
        message = getattr(message, name)
    setattr(message, last, etag)
    return []


def _put_place(message: Any, field: str, value: str) -> list[Violation]:
    if not field:
        return [Violation("Last-Event-ID", "this stream has no place to resume at")]
    if not _PLACE.fullmatch(value):
        return [Violation("Last-Event-ID", "no id of an event")]
    setattr(message, field, int(value))
    return []


def _accepted(request: Any) -> bool:
    """Whether the caller did not want to wait for the end of a create."""
    field = request.DESCRIPTOR.fields_by_name.get("return_when")
    if field is None:
        return False
    name = field.enum_type.values_by_number[getattr(request, field.name)].name
    return bool(name.endswith("_ACCEPTED"))
