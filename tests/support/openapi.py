"""The committed OpenAPI document, and answers held to it."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from openapi_schema_validator import OAS31Validator, oas31_format_checker
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from gateway.rest.document import FILE

_NAME = "urn:openapi"


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    said: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.said["operationId"])

    def matches(self, method: str, path: str) -> bool:
        pattern = re.sub(r"\\\{(\w+)\\\}", _segment, re.escape(self.path))
        return method == self.method and re.fullmatch(pattern, path) is not None


def _segment(found: re.Match[str]) -> str:
    return ".+" if found[1] == "path" else "[^/:]+"


class OpenApi:
    """Refuses what the document says nothing of, though a client has to live with more."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = json.loads(FILE.read_text())
        self.operations = list(self._operations())
        closed = DRAFT202012.create_resource(_closed(self.document))
        self._registry: Registry[Any] = Registry().with_resource(_NAME, closed)

    def resolved(self, said: Any) -> Any:
        """What a reference leads to, under what is said beside it."""
        if "$ref" not in said:
            return said
        found: Any = self.document
        for name in said["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        return {**found, **{key: value for key, value in said.items() if key != "$ref"}}

    def operation(self, method: str, path: str) -> Operation:
        found = [each for each in self.operations if each.matches(method, path)]
        assert len(found) == 1, (method, path, [each.id for each in found])
        return found[0]

    def check(self, schema: Any, value: Any) -> None:
        """Raises if `value` is not what `schema`, a part of the document, says."""
        located = _located(schema)
        OAS31Validator(
            located, registry=self._registry, format_checker=oas31_format_checker
        ).validate(value)

    def check_answer(self, response: httpx.Response) -> Operation:
        """Raises if the document does not have this answer to its request."""
        request = response.request
        path = request.url.raw_path.decode().partition("?")[0]
        operation = self.operation(request.method, path)
        answers = operation.said["responses"]
        assert str(response.status_code) in answers, (operation.id, response.status_code)
        answer = self.resolved(answers[str(response.status_code)])
        kind = response.headers.get("content-type", "")
        content = answer.get("content", {})
        assert (kind in content) if content else response.content == b"", (operation.id, kind)
        for name, said in answer.get("headers", {}).items():
            self._check_header(response, name, self.resolved(said))
        if content:
            self._check_content(content[kind]["schema"], kind, response)
        if response.status_code >= 400:
            assert reason_of(response) in answer["description"], (operation.id, response.text)
        return operation

    def check_request(self, request: httpx.Request) -> None:
        """Raises if the document would refuse the JSON that was sent."""
        path = request.url.raw_path.decode().partition("?")[0]
        body = self.operation(request.method, path).said.get("requestBody")
        if body and request.content and "application/json" in body["content"]:
            self.check(body["content"]["application/json"]["schema"], json.loads(request.content))

    def _check_header(self, response: httpx.Response, name: str, said: Any) -> None:
        value = response.headers.get(name)
        if value is None:
            listing = name in ("ETag", "Accept-Ranges") and response.is_success
            assert listing, (response.url, name)
            assert "json" in response.headers["content-type"], (response.url, name)
        elif said["schema"]["type"] == "integer":
            self.check(said["schema"], int(value))
        else:
            self.check(said["schema"], value)

    def _check_content(self, schema: Any, kind: str, response: httpx.Response) -> None:
        match kind:
            case "application/json":
                self.check(schema, response.json())
            case "application/x-ndjson":
                for line in response.text.splitlines():
                    self.check(schema["contentSchema"], json.loads(line))
            case "text/event-stream":
                for event in re.findall("^data: (.*)$", response.text, re.MULTILINE):
                    self.check(schema["contentSchema"], json.loads(event))
            case _:
                assert schema == {"type": "string", "format": "binary"}

    def _operations(self) -> Iterator[Operation]:
        for path, item in self.document["paths"].items():
            for method, said in item.items():
                yield Operation(method.upper(), path, said)


def reason_of(response: httpx.Response) -> str:
    details = response.json()["details"]
    return str(next(each["reason"] for each in details if "reason" in each))


def path_with(path: str, values: Mapping[str, str]) -> str:
    """A template with values in the place of its parameters."""
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], path)


def _closed(said: Any) -> Any:
    """The same, but every object has the properties that are named and no other."""
    if isinstance(said, list):
        return [_closed(each) for each in said]
    if not isinstance(said, dict):
        return said
    closed = {key: _closed(value) for key, value in said.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed.setdefault("additionalProperties", False)
    return closed


def _located(said: Any) -> Any:
    """The same, with references that hold outside of the document."""
    text = json.dumps(said).replace('"#/components/', f'"{_NAME}#/components/')
    return _closed(json.loads(text))
