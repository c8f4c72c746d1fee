"""One operation of the document for each route of the gateway."""

from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from gateway.rest.fields import resolve
from gateway.rest.routes import Match, Route
from gateway.rest.streams import NDJSON, SSE
from gateway.rest.transcode import MAX_PLACE, TAG, given_elsewhere
from scripts.openapi.comments import in_json_names
from scripts.openapi.failures import Failure, Failures, headers, responses
from scripts.openapi.limits import Schema
from scripts.openapi.paths import path_parameters
from scripts.openapi.schemas import Schemas, Side, field_at, message_of

JSON: Final = "application/json"
ONE_ETAG: Final[Schema] = {"type": "string", "pattern": f"^({TAG.pattern})$"}

# Failures that every RPC has, and so no comment names them.
_ALWAYS: Final = (
    ("INVALID_ARGUMENT", "INVALID_FIELD"),
    ("UNAUTHENTICATED", "UNAUTHENTICATED"),
    ("PERMISSION_DENIED", "PERMISSION_DENIED"),
    ("INTERNAL", "INTERNAL"),
    ("UNAVAILABLE", "SERVICE_UNAVAILABLE"),
    ("UNAVAILABLE", "SHUTTING_DOWN"),
    ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
)
_TOO_LARGE: Final = ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
_WITH_BODY: Final = (("INVALID_ARGUMENT", "MALFORMED_JSON"), _TOO_LARGE)
_MUTATING: Final = (
    ("ALREADY_EXISTS", "REQUEST_ID_REUSED"),
    ("RESOURCE_EXHAUSTED", "DISK_FULL"),
)
# What these are called as components, where an operation has no other of the code.
_SHARED: Final = {
    400: "Invalid",
    401: "Unauthenticated",
    403: "Denied",
    413: "TooLarge",
    500: "Internal",
    503: "Unavailable",
    504: "DeadlineExceeded",
}

_AS_EVENTS: Final = (
    f"With `Accept: {NDJSON}` or `Accept: {SSE}` the answer is a stream of events, as that of"
    " `:stream`."
)


class Operations:
    def __init__(self, schemas: Schemas, failures: Failures) -> None:
        self.schemas = schemas
        self._failures = failures
        always = [failures.general(*each) for each in (*_ALWAYS, _TOO_LARGE)]
        self._shared = responses(always, conditional=False)

    def shared(self) -> Schema:
        """The components that `responses` refers to."""
        return {_SHARED[code]: response for code, response in self._shared.items()}

    def of(self, route: Route) -> Schema:
        """An RPC in JSON."""
        operation = self.begun(route)
        input_type = route.rpc.input_type
        operation["parameters"] += [
            *path_parameters(route, self.schemas),
            *self.query(route, input_type),
            *self.headers(route, input_type),
        ]
        if route.body:
            operation["requestBody"] = self._body(route)
        operation["responses"] = self._success(route) | self.failed(route)
        return operation

    def begun(self, route: Route, more: str = "") -> Schema:
        """What it is called, and what it does. `more`: what only HTTP has to be told of."""
        prose = in_json_names(self._failures.prose(route.rpc))
        more = f"{more} {_AS_EVENTS}".strip() if route.streamed else more
        return {
            "operationId": operation_id(route),
            "tags": [route.rpc.containing_service.name],
            "summary": _first_sentence(prose),
            "description": f"{prose}\n\n{more}".strip(),
            "parameters": [{"$ref": "#/components/parameters/RequestId"}],
        }

    def query(self, route: Route, kind: Descriptor, inside: str = "") -> Iterator[Schema]:
        """`inside`: where in the request a message of that kind is."""
        match = Match(route, dict.fromkeys(route.template.fields, b""))
        elsewhere = [at.removeprefix(inside) for at in given_elsewhere(match)]
        elsewhere += [_raw(at.removeprefix(inside)) for at in route.template.fields]
        required = self.schemas.required(kind)
        for name in _query_names(kind, kind):
            if any(f"{name}.".startswith(f"{at}.") for at in elsewhere):
                continue
            field = field_at(kind, name)
            schema = self.schemas.field(field, Side.REQUEST, query=True)
            parameter = {
                "name": name,  # As the contract's own calls have it; JSON's will do as well.
                "in": "query",
                "description": schema.pop("description"),
                "schema": schema,
            }
            yield parameter | ({"required": True} if name in required else {})

    def headers(self, route: Route, kind: Descriptor) -> Iterator[Schema]:
        if field := kind.fields_by_name.get("request_id"):
            schema = self.schemas.field(field, Side.REQUEST)
            text = f"{schema.pop('description')} The same as `request_id`: they may not differ."
            yield header("Idempotency-Key", text, schema)
        if path := route.etag():
            text = self.schemas.comment(field_at(kind, path).full_name)
            yield header("If-Match", f"One strong etag, the same as `etag`: {text}", ONE_ETAG)
        if route.rpc.server_streaming and (place := route.place()):
            text = f"Where to resume, as the last `id:` said; instead of `{place}`."
            schema = {"type": "integer", "format": "int64", "minimum": 0, "maximum": MAX_PLACE}
            yield header("Last-Event-ID", text, schema)

    def general(self, code: str, reason: str) -> Failure:
        return self._failures.general(code, reason)

    def failed(self, route: Route, *, conditional: bool = False) -> dict[str, Any]:
        """`conditional`: the route takes If-Match in a manner of its own."""
        conditional = conditional or route.etag() != ""
        found = responses(self._of(route), conditional=conditional)
        return {
            str(code): {"$ref": f"#/components/responses/{_SHARED[code]}"}
            if response == self._shared.get(code)
            else response
            for code, response in found.items()
        }

    def _of(self, route: Route) -> list[Failure]:
        given = [*_ALWAYS]
        options = route.rpc.GetOptions()
        if route.body and not route.rpc.client_streaming:
            given += _WITH_BODY
        if options.idempotency_level != MethodOptions.NO_SIDE_EFFECTS:
            given += _MUTATING
        named = self._failures.of(route.rpc)
        if route.streamed:
            named += self._failures.of(route.streamed.rpc)
        return [*named, *(self._failures.general(*each) for each in given)]

    def _body(self, route: Route) -> Schema:
        kind = route.rpc.input_type
        if route.body == "*":
            outer = {path.partition(".")[0] for path in route.template.fields}
            schema = self.schemas.message(kind, Side.REQUEST, without=outer, own=True)
            required = any(name not in outer for name in self.schemas.required(kind))
            return {"required": required, "content": {JSON: {"schema": schema}}}
        field = field_at(kind, route.body)
        named = any(path.startswith(f"{route.body}.") for path in route.template.fields)
        return {
            "description": self.schemas.comment(field.full_name),
            "required": route.body in self.schemas.required(kind) and not named,
            "content": {JSON: {"schema": self.schemas.message(message_of(field), Side.REQUEST)}},
        }

    def _success(self, route: Route) -> dict[str, Any]:
        if route.rpc.server_streaming:
            content = self._events(route.rpc)
            answers = {"200": _answer("The events, as they come.", content)}
            if "from_offset" in route.rpc.input_type.fields_by_name:
                text = "A read that resumes at the end of what has ended: there is nothing more."
                answers["204"] = {"description": text, "headers": headers({})}
            return answers
        kind = route.rpc.output_type
        shown = field_at(kind, route.response_body) if route.response_body else None
        schema = (
            self.schemas.message(message_of(shown), Side.RESPONSE)
            if shown
            else self.schemas.message(kind, Side.RESPONSE, own=True)
        )
        text = self.schemas.comment(shown.full_name if shown else kind.full_name)
        content = {JSON: {"schema": schema}}
        if route.streamed:
            content |= self._events(route.streamed.rpc)
        given = {}
        if shown and "etag" in message_of(shown).fields_by_name:
            given["ETag"] = "ETag"
        if not route.creates:
            return {"200": _answer(text, content, given)}
        given["Location"] = "Location"
        answers = {"201": _answer(text, content, given)}
        if "return_when" in route.rpc.input_type.fields_by_name:
            words = "It is recorded, and is being made: the caller did not want to wait."
            answers["202"] = _answer(words, content, given)
        return answers

    def _events(self, rpc: MethodDescriptor) -> Schema:
        """Each is JSON by itself, and a client that knows JSON only gets the text of all."""
        event = self.schemas.event(rpc.output_type)
        return {
            NDJSON: {
                "schema": {
                    "type": "string",
                    "description": "One event a line.",
                    "contentMediaType": JSON,
                    "contentSchema": event,
                }
            },
            SSE: {
                "schema": {
                    "type": "string",
                    "description": "Server-sent events: `data:` is one event; `id:` says where to"
                    " resume after it, where one can. A heartbeat is a comment.",
                    "contentMediaType": JSON,
                    "contentSchema": event,
                }
            },
        }


def operation_id(route: Route) -> str:
    number = str(route.binding + 1) if route.binding else ""
    return f"{route.rpc.containing_service.name}_{route.rpc.name}{number}"


def header(name: str, text: str, schema: Schema | None = None) -> Schema:
    return {
        "name": name,
        "in": "header",
        "description": text,
        "schema": schema or {"type": "string"},
    }


def _answer(text: str, content: Schema, given: dict[str, str] | None = None) -> Schema:
    return {"description": text, "headers": headers(given or {}), "content": content}


def _query_names(root: Descriptor, kind: Descriptor, outer: str = "") -> Iterator[str]:
    """Every name, dotted, that the query of a request `root` may hold below `outer`."""
    for field in kind.fields:
        name = f"{outer}{field.name}"
        _, problem = resolve(root, name)
        if not problem:
            yield name
        elif field.message_type:
            yield from _query_names(root, field.message_type, f"{name}.")


def _raw(path: str) -> str:
    """The field that says the same as one in the path, which is as good when it is encoded."""
    outer, dot, last = path.rpartition(".")
    return f"{outer}{dot}raw_{last}"


def _first_sentence(text: str) -> str:
    return text.split("\n")[0].split(". ")[0].removesuffix(".")
