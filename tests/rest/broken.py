"""Values that keep to a schema, and for each of its limits one that does not."""

import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.support.openapi import OpenApi

_WORDS = ["a", "A", "0" * 40, "workspaces/a", "1s", "1", "ERROR_REASON_A", "blob:none"]
_WRONG_WORDS = ["-1s", "-1", "!", "\0", "a b", ""]
_OF_FORMAT = {
    "uuid": "6f8c1a9e-3a54-4c1b-9a51-6a3a0f2f5b60",
    "date-time": "2026-01-02T03:04:05Z",
    "byte": "YQ==",
}
# What is not said in words of JSON Schema.
_SAMPLES = {"ExecutionSpecInput": {"argv": ["true"]}}
_OTHER_TYPES = {"integer": "x", "boolean": "x", "array": 1, "object": 1, "string": []}


@dataclass(frozen=True)
class Broken:
    at: str
    """The field that is wrong, dotted, as JSON names it."""

    limit: str
    value: Any


class Breaker:
    def __init__(self, api: OpenApi) -> None:
        self._api = api

    def sample(self, schema: Any) -> Any:
        name = schema.get("$ref", "").rpartition("/")[2]
        if name in _SAMPLES:
            return _SAMPLES[name]
        schema = self._api.resolved(schema)
        if "enum" in schema:
            return schema["enum"][0]
        match schema["type"]:
            case "object":
                needed = schema.get("required", [])
                return {each: self.sample(schema["properties"][each]) for each in needed}
            case "array":
                return [self.sample(schema["items"])] * schema.get("minItems", 0)
            case "integer":
                return max(0, schema.get("minimum", 0))
            case "boolean":
                return True
        if schema.get("format") in _OF_FORMAT:
            return _OF_FORMAT[schema["format"]]
        return next(each for each in _WORDS if re.search(schema.get("pattern", ""), each))

    def broken(self, schema: Any, at: str = "", *, types: bool = True) -> Iterator[Broken]:
        """Each is wrong in one place. `types`: also in the type, which a text cannot be."""
        sample = self.sample(schema)
        schema = self._api.resolved(schema)
        if "enum" in schema:
            yield Broken(at, "enum", "NO_SUCH_VALUE")
            return
        if types and at:
            yield Broken(at, "type", _OTHER_TYPES[schema["type"]])
        match schema["type"]:
            case "object":
                yield from self._object(schema, sample, at)
            case "array":
                yield from self._array(schema, at, types)
            case "integer":
                yield from _integer(schema, at)
            case "string":
                yield from _string(schema, at)

    def _object(self, schema: Any, sample: Any, at: str) -> Iterator[Broken]:
        properties = schema.get("properties", {})
        for name in schema.get("required", []):
            rest = {key: value for key, value in sample.items() if key != name}
            yield Broken(_below(at, name), "required", rest)
        for name, said in properties.items():
            for each in self.broken(said, _below(at, name)):
                yield Broken(each.at, each.limit, {**sample, name: each.value})
        most = schema.get("maxProperties")
        value = schema["additionalProperties"]
        if value is False:
            yield Broken(_below(at, "unknown"), "additionalProperties", {**sample, "unknown": 1})
            if most:
                yield Broken(at, "maxProperties", {name: {} for name in [*properties][: most + 1]})
            return
        if most:
            many = {f"k{number}": self.sample(value) for number in range(most + 1)}
            yield Broken(at, "maxProperties", many)
        if "propertyNames" in schema:
            yield Broken(at, "propertyNames", {_wrong(schema["propertyNames"]): "a"})
        for each in self.broken(value, at):
            yield Broken(at, f"additionalProperties.{each.limit}", {"k": each.value})

    def _array(self, schema: Any, at: str, types: bool) -> Iterator[Broken]:
        if most := schema.get("maxItems"):
            item = self.sample(schema["items"])
            yield Broken(at, "maxItems", [item] * (most + 1))
        for each in self.broken(schema["items"], at, types=types):
            count = max(1, schema.get("minItems", 0))
            yield Broken(each.at, f"items.{each.limit}", [each.value] * count)


def _integer(schema: Any, at: str) -> Iterator[Broken]:
    if "minimum" in schema:
        yield Broken(at, "minimum", schema["minimum"] - 1)
    if "maximum" in schema:
        yield Broken(at, "maximum", schema["maximum"] + 1)


def _string(schema: Any, at: str) -> Iterator[Broken]:
    if "maxLength" in schema:
        longer = "a" * (schema["maxLength"] + 1)
        if schema.get("contentEncoding") == "base64":
            longer = b64encode(bytes(schema["maxLength"] // 4 * 3 + 1)).decode()
        yield Broken(at, "maxLength", longer)
    if schema.get("minLength"):
        yield Broken(at, "minLength", "")
    if "pattern" in schema:
        yield Broken(at, "pattern", _wrong(schema))
    if schema.get("format") in ("uuid", "date-time"):
        yield Broken(at, "format", "not-of-this-format")
    if "const" in schema:
        yield Broken(at, "const", "something-else")


def _wrong(schema: Any) -> str:
    return next(each for each in _WRONG_WORDS if not re.search(schema["pattern"], each))


def _below(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name
