"""What of the document no proto tells: failures, health, headers, words of introduction."""

from typing import Any, Final

from gateway.rest.app import HEALTH, READY
from gateway.rest.document import PATH
from scripts.openapi.failures import headers
from scripts.openapi.limits import POSITIVE_DURATION, Schema

_DETAIL: Final = "type.googleapis.com/google.rpc."
_TEXT: Final[Schema] = {"type": "string"}

INFO: Final[Schema] = {
    "title": "Cove",
    "version": "v1",
    "summary": "Isolated, git-backed workspaces for AI coding agents, CI bots and platform teams.",
    "description": """\
The RPCs of `cove.gateway.v1` over HTTP and JSON, in the JSON of proto3: 64-bit integers and
durations are strings, bytes are base64, what has its default value is left out.

- JSON has lowerCamelCase, queries have the names of the protos. Requests may use either in both:
  `workspace_id` is `workspaceId`. An unknown field is refused.
- Every change takes an Idempotency-Key (a UUID): a retry with the same one returns the first
  result, for 24 hours.
- Every answer has an X-Request-Id, which is also in the logs; give it to the operator when
  something fails.
- A failure is a `Status`. Branch on the `reason` of its `ErrorInfo`, never on a message; new
  reasons may come. Each operation lists its own, docs/errors.md has cause and remedy of all.
- What JSON has no word for (`at most 4096 bytes`) is in the description of a field, and is a limit
  as well.
- A URL with its headers that is longer than 64 KiB gets a 400 of plain text.
- HEAD is answered where GET is, except for streams of events.
""",
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}

SECURITY_SCHEMES: Final[Schema] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "`Authorization: Bearer <token>`; `cove up` says which file has the token.",
    }
}

PARAMETERS: Final[Schema] = {
    "RequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Correlation id to log and return. One that is missing, longer than 128"
        " characters or of others than `A-Z a-z 0-9 . _ : / + = -` is replaced.",
        "schema": _TEXT,
    }
}

RESPONSE_HEADERS: Final[Schema] = {
    "RequestId": {"description": "Correlation id of the call.", "required": True, "schema": _TEXT},
    "ETag": {
        "description": "Changes when the thing may have; send it back as If-Match.",
        "schema": _TEXT,
    },
    "Location": {"description": "Path of what was made.", "schema": _TEXT},
    "RetryAfter": {
        "description": "Seconds after which the same call may succeed.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "Authenticate": {"description": "What is asked for: `Bearer`.", "schema": _TEXT},
    "AcceptRanges": {"description": "Always `bytes`, of a file.", "schema": _TEXT},
    "ContentRange": {
        "description": "Which bytes of how many.",
        "schema": {"type": "string", "pattern": r"^bytes ([0-9]+-[0-9]+|\*)/([0-9]+|\*)$"},
    },
}


def _listed(name: str, properties: Schema) -> Schema:
    items = {"type": "object", "properties": properties}
    return {"properties": {name: {"type": "array", "items": items}}}


_DETAILS: Final[dict[str, Schema]] = {
    "ErrorInfo": {
        "description": "Why it failed, for programs.",
        "properties": {
            "reason": {
                "type": "string",
                "description": "Name of a `cove.errors.v1.ErrorReason`.",
                "pattern": "^ERROR_REASON_[A-Z0-9_]+$",
            },
            "domain": {"type": "string", "description": "Always `cove`."},
            "metadata": {
                "type": "object",
                "description": "What varies; docs/errors.md says what a reason has.",
                "additionalProperties": _TEXT,
            },
        },
        "required": ["reason", "domain"],
    },
    "BadRequest": {
        "description": "What is wrong with the request.",
        **_listed(
            "fieldViolations",
            {
                "field": {
                    "type": "string",
                    "description": "In the proto's names, for example `spec.timeout`; or a header.",
                },
                "description": _TEXT,
            },
        ),
    },
    "PreconditionFailure": {
        "description": "What about the state of things forbids it.",
        **_listed("violations", {"type": _TEXT, "subject": _TEXT, "description": _TEXT}),
    },
    "QuotaFailure": {
        "description": "Which limit is reached.",
        **_listed("violations", {"subject": _TEXT, "description": _TEXT}),
    },
    "RetryInfo": {
        "description": "When the same call may succeed.",
        "properties": {"retryDelay": {"type": "string", "pattern": POSITIVE_DURATION}},
    },
    "LocalizedMessage": {
        "description": "What to do about it, for a person or a model.",
        "properties": {"locale": _TEXT, "message": _TEXT},
        "required": ["locale", "message"],
    },
}


def failure_schemas() -> Schema:
    """`google.rpc.Status` with the details that Cove sends."""
    references = {name: f"#/components/schemas/{name}" for name in _DETAILS}
    status = {
        "type": "object",
        "description": "A failure, as gRPC tells it.",
        "properties": {
            "code": {"type": "integer", "description": "Number of the code of gRPC."},
            "message": {"type": "string", "description": "For people, in English."},
            "details": {
                "type": "array",
                "items": {
                    "oneOf": [{"$ref": each} for each in references.values()],
                    "discriminator": {
                        "propertyName": "@type",
                        "mapping": {f"{_DETAIL}{name}": ref for name, ref in references.items()},
                    },
                },
            },
        },
        "required": ["code", "message", "details"],
    }
    return {"Status": status} | {name: _detail(name, said) for name, said in _DETAILS.items()}


def _detail(name: str, said: Schema) -> Schema:
    tag = {"@type": {"type": "string", "const": f"{_DETAIL}{name}"}}
    return {
        "type": "object",
        "description": said["description"],
        "properties": tag | said["properties"],
        "required": ["@type", *said.get("required", [])],
    }


TAG: Final[Schema] = {"name": "Health", "description": "Of the gateway, and its own description."}


def fixed_paths() -> Schema:
    """The paths that no RPC is behind."""
    serving = {"200": _health("It serves.")}
    ready = serving | {"503": _health("It is starting, stopping, or cannot reach a service.")}
    return {
        HEALTH: _get("Health", "Tells whether the process answers", serving, public=True),
        READY: _get("Readiness", "Tells whether the gateway can serve", ready, public=True),
        PATH: _get("OpenApi", "Returns this document", _document_answers(), public=False),
    }


def _get(name: str, summary: str, answers: dict[str, Any], *, public: bool) -> Schema:
    operation = {
        "operationId": f"Gateway_{name}",
        "tags": [TAG["name"]],
        "summary": summary,
        "parameters": [{"$ref": "#/components/parameters/RequestId"}],
        "responses": answers,
    }
    return {"get": operation | ({"security": []} if public else {})}


def _health(text: str) -> Schema:
    said = {"type": "string", "enum": ["SERVING", "NOT_SERVING"]}
    schema = {"type": "object", "properties": {"status": said}, "required": ["status"]}
    return {
        "description": text,
        "headers": headers({}),
        "content": {"application/json": {"schema": schema}},
    }


def _document_answers() -> dict[str, Any]:
    etag = headers({"ETag": "ETag"})
    return {
        "200": {
            "description": "OpenAPI 3.1.",
            "headers": etag,
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
        "304": {"description": "It is the one that If-None-Match names.", "headers": etag},
        "401": {"$ref": "#/components/responses/Unauthenticated"},
        "403": {"$ref": "#/components/responses/Denied"},
        "500": {"$ref": "#/components/responses/Internal"},
    }
