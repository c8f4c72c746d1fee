"""The routes whose body is bytes: files, archives, input; and the one that is a WebSocket."""

from typing import Any

from cove.gateway.v1 import gateway_pb2
from gateway.rest.routes import Route
from scripts.openapi.failures import failed, headers
from scripts.openapi.limits import Schema
from scripts.openapi.operations import JSON, ONE_ETAG, Operations, header
from scripts.openapi.paths import path_parameters
from scripts.openapi.schemas import Side, message_of

_CONTENT = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_ARCHIVE = {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}}
_LISTING = gateway_pb2.DESCRIPTOR.message_types_by_name["ListFilesResponse"]

_READING = (
    "A directory answers with the list of what is in it, as JSON; so does `/files` without a path,"
    " for the workspace's root."
)
_STREAMING = "The body is written while it comes; a command that does not read holds it up."
_ATTACHING = (
    "A handshake of a WebSocket. A failure before the first event is answered here, a later one is"
    ' the last message, `{"error": …}`. Any other request is refused with 426.'
)
_WRITING = "A `mode` that begins with 0 is octal."


def reading(operations: Operations, route: Route) -> Schema:
    kind = route.rpc.input_type
    operation = operations.begun(route, _READING)
    operation["parameters"] += [
        *path_parameters(route, operations.schemas),
        *operations.query(route, kind),
        header("Range", "One range of bytes, for example `bytes=0-1023`; more are ignored."),
        header("If-Range", "Only if the file is the one with this etag, honour Range."),
        header("If-Match", "Only if the file is one of those with these etags."),
        header("If-None-Match", "Only if the file is none of those with these etags."),
    ]
    listed = operations.schemas.message(_LISTING, Side.RESPONSE, own=True)
    file = {"ETag": "ETag", "Accept-Ranges": "AcceptRanges"}
    answers: dict[str, Any] = {
        "200": {
            "description": "The content, or the list of a directory.",
            "headers": headers(file),
            "content": {**_CONTENT, JSON: {"schema": listed}},
        },
        "206": {
            "description": "The part of the content that Range asks for.",
            "headers": headers({**file, "Content-Range": "ContentRange"}),
            "content": _CONTENT,
        },
        "304": {
            "description": "The content is one that If-None-Match names.",
            "headers": headers({"ETag": "ETag"}),
        },
    }
    failures = operations.failed(route, conditional=True)
    failures["412"] = failed(412, [operations.general("ABORTED", "FILE_CHANGED")])
    failures["416"] = failed(416, [operations.general("INVALID_ARGUMENT", "INVALID_FIELD")])
    return operation | {"responses": answers | dict(sorted(failures.items()))}


def writing(operations: Operations, route: Route) -> Schema:
    kind = message_of(route.rpc.input_type.fields_by_name["header"])
    operation = operations.begun(route, _WRITING)
    operation["parameters"] += [
        *path_parameters(route, operations.schemas),
        *operations.query(route, kind, "header."),
        *operations.headers(route, kind),
        header("If-Match", "One strong etag, the same as `etag`.", ONE_ETAG),
        header("If-None-Match", "The same as `must_not_exist`.", {"type": "string", "enum": ["*"]}),
    ]
    file = route.rpc.output_type.fields_by_name[route.response_body]
    written = operations.schemas.message(message_of(file), Side.RESPONSE)
    answer = {
        "description": operations.schemas.comment(file.full_name),
        "headers": headers({"ETag": "ETag"}),
        "content": {JSON: {"schema": written}},
    }
    return operation | {
        "requestBody": {
            "description": "The whole content.",
            "required": True,
            "content": _CONTENT,
        },
        "responses": {"200": answer} | operations.failed(route, conditional=True),
    }


def streaming(operations: Operations, route: Route) -> Schema:
    kind = route.rpc.input_type
    operation = operations.begun(route, _STREAMING)
    operation["parameters"] += [
        *path_parameters(route, operations.schemas),
        *operations.query(route, kind),
    ]
    for parameter in operation["parameters"]:
        if parameter.get("name") == "offset":
            parameter["required"] = True
    answered = operations.schemas.message(route.rpc.output_type, Side.RESPONSE, own=True)
    answer = {"description": "How far it came.", "content": {JSON: {"schema": answered}}}
    return operation | {
        "requestBody": {"description": "The input.", "required": True, "content": _CONTENT},
        "responses": {"200": answer} | operations.failed(route),
    }


def attaching(operations: Operations, route: Route) -> Schema:
    kind = message_of(route.rpc.input_type.fields_by_name["open"])
    operation = operations.begun(route, _ATTACHING)
    operation["parameters"] += [
        *path_parameters(route, operations.schemas),
        *(
            each
            for each in operations.query(route, kind, "open.")
            if not each["name"].startswith("start.")
        ),
    ]
    answers = {"101": {"description": "The WebSocket is open."}}
    return operation | {"responses": answers | operations.failed(route)}


def packing(operations: Operations, route: Route) -> Schema:
    operation = operations.begun(route)
    operation["parameters"] += [
        *path_parameters(route, operations.schemas),
        *operations.query(route, route.rpc.input_type),
    ]
    answer = {"description": "The archive.", "content": _ARCHIVE}
    return operation | {"responses": {"200": answer} | operations.failed(route)}


def unpacking(operations: Operations, route: Route) -> Schema:
    kind = message_of(route.rpc.input_type.fields_by_name["header"])
    operation = operations.begun(route)
    operation["parameters"] += [
        *path_parameters(route, operations.schemas),
        *operations.query(route, kind, "header."),
        *operations.headers(route, kind),
    ]
    field = route.rpc.output_type.fields_by_name[route.response_body]
    shown = operations.schemas.message(message_of(field), Side.RESPONSE)
    return operation | {
        "requestBody": {"description": "The archive.", "required": True, "content": _ARCHIVE},
        "responses": {
            "200": {
                "description": operations.schemas.comment(field.full_name),
                "content": {JSON: {"schema": shown}},
            }
        }
        | operations.failed(route),
    }
