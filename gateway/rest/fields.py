"""Writes JSON, queries and paths into messages, and finds every mistake at once.

json_format alone stops at the first mistake and names Python types, not fields.
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from gateway.rest.errors import MalformedJson
from servicekit.errors import Violation

_WELL_KNOWN: Final = "google.protobuf."
_MASK: Final = "google.protobuf.FieldMask"
_NOISE: Final = re.compile(r"Failed to parse \w+ field: (?P<problem>.*?)(?: at [\w.\[\]]+)?\.*")
_BOOLS: Final = {"true": True, "false": False}


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`; an empty body is an empty one. Raises `MalformedJson`."""
    if not body.strip():
        return {}
    try:
        value = json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedJson(f"the body is not JSON: {_short(error)}") from None
    if not isinstance(value, dict):
        raise MalformedJson("the body is not a JSON object")
    return value


def fill(message: Any, value: Mapping[str, Any], prefix: str = "") -> list[Violation]:
    """Write a JSON object into `message`. Returns what is wrong with it."""
    violations: list[Violation] = []
    taken: set[str] = set()
    for key, item in value.items():
        field = field_of(message.DESCRIPTOR, key)
        at = prefix + (field.name if field else key)
        if field is None:
            violations.append(Violation(at, "unknown field"))
        elif item is not None:
            place = field.containing_oneof.name if field.containing_oneof else field.name
            if place in taken:
                violations.append(Violation(at, "given twice, or beside another of its kind"))
            taken.add(place)
            violations += _put(message, field, key, item, at)
    return violations


def query_json(
    descriptor: Descriptor, query: bytes, refused: Mapping[str, str]
) -> tuple[dict[str, Any], list[Violation]]:
    """A query as the JSON that says the same, and what is wrong with it.

    `refused`: fields that are given elsewhere, and the words for it.
    """
    value: dict[str, Any] = {}
    violations: list[Violation] = []
    for name, text in _pairs(query):
        fields, problem = resolve(descriptor, name)
        path = ".".join(field.name for field in fields)
        problem = problem or next(
            (why for at, why in refused.items() if f"{path}.".startswith(f"{at}.")), ""
        )
        if not problem:
            problem = _put_text(value, fields, text)
        if problem:
            violations.append(Violation(path if fields else name, problem))
    return value, violations


def resolve(descriptor: Descriptor, name: str) -> tuple[list[FieldDescriptor], str]:
    """The fields that a dotted name in a query leads through, and what is wrong with it."""
    fields: list[FieldDescriptor] = []
    inside: Descriptor | None = descriptor
    for part in name.split("."):
        field = field_of(inside, part) if inside else None
        if field is None:
            return [], "unknown query parameter"
        fields.append(field)
        inside = field.message_type if _is_plain_message(field) and not field.is_repeated else None
    if any(map(_holds_secret, fields)):
        return fields, "a secret has no place in a URL"
    if fields[-1].message_type and not fields[-1].message_type.full_name.startswith(_WELL_KNOWN):
        return fields, "has no form in a query"
    return fields, ""


def put_path(message: Message, path: str, value: bytes) -> list[Violation]:
    """Write what a path says into the field at the dotted `path`, where a body may have been."""
    *outer, last = path.split(".")
    for name in outer:
        message = getattr(message, name)
    try:
        text = value.decode()
    except UnicodeDecodeError:
        if f"raw_{last}" not in message.DESCRIPTOR.fields_by_name:
            return [Violation(path, "not UTF-8")]
        setattr(message, f"raw_{last}", value)
        return []
    if getattr(message, last) not in ("", text):
        return [Violation(path, "the path says otherwise")]
    setattr(message, last, text)
    return []


def field_of(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    """By the proto's own name, or the lowerCamelCase one of JSON."""
    found = descriptor.fields_by_name.get(name)
    return found or next((each for each in descriptor.fields if each.json_name == name), None)


def _put(message: Message, field: FieldDescriptor, key: str, item: Any, at: str) -> list[Violation]:
    if not _is_plain_message(field):
        return _put_leaf(message, field, key, item, at)
    if not field.is_repeated:
        if not isinstance(item, dict):
            return [Violation(at, "not a JSON object")]
        inner = getattr(message, field.name)
        inner.SetInParent()
        return fill(inner, item, f"{at}.")
    if not isinstance(item, list):
        return [Violation(at, "not a JSON array")]
    violations = []
    for index, each in enumerate(item):
        if isinstance(each, dict):
            violations += fill(getattr(message, field.name).add(), each, f"{at}[{index}].")
        else:
            violations.append(Violation(f"{at}[{index}]", "not a JSON object"))
    return violations


def _put_leaf(
    message: Message, field: FieldDescriptor, key: str, item: Any, at: str
) -> list[Violation]:
    try:
        json_format.ParseDict({key: item}, message)
    except json_format.ParseError as error:
        if field.GetOptions().debug_redact:
            return [Violation(at, "not a value of this field")]
        found = _NOISE.fullmatch(str(error))
        return [Violation(at, found["problem"] if found else str(error))]
    return []


def _is_plain_message(field: FieldDescriptor) -> bool:
    """Whether JSON has its fields one by one: it is no map and no well-known type."""
    kind = field.message_type
    return (
        kind is not None
        and not kind.GetOptions().map_entry
        and not kind.full_name.startswith(_WELL_KNOWN)
    )


def _holds_secret(field: FieldDescriptor) -> bool:
    inside = field.message_type if _is_plain_message(field) else None
    return bool(field.GetOptions().debug_redact) or (
        inside is not None and any(map(_holds_secret, inside.fields))
    )


def _put_text(value: dict[str, Any], fields: list[FieldDescriptor], data: bytes) -> str:
    """Returns what is wrong."""
    for field in fields[:-1]:
        value = value.setdefault(field.name, {})
    last = fields[-1]
    try:
        item: Any = data.decode()
    except UnicodeDecodeError:
        raw = _sibling(last, f"raw_{last.name}")
        if raw is None:
            return "not UTF-8"
        last, item = raw, b64encode(data).decode()
    if last.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        item = _BOOLS.get(item, item)
    if last.message_type and last.message_type.full_name == _MASK:
        item = re.sub(r"_([a-z])", lambda found: found[1].upper(), item)
    if last.is_repeated:
        value.setdefault(last.name, []).append(item)
    elif last.name in value:
        return "given twice"
    else:
        value[last.name] = item
    return ""


def _sibling(field: FieldDescriptor, name: str) -> FieldDescriptor | None:
    return field.containing_type.fields_by_name.get(name) if field.containing_type else None


def _pairs(query: bytes) -> Iterator[tuple[str, bytes]]:
    for pair in query.split(b"&"):
        if pair:
            name, _, value = pair.partition(b"=")
            yield (
                unquote_to_bytes(name).decode(errors="replace"),
                unquote_to_bytes(value.replace(b"+", b" ")),
            )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name is there twice in one object")
    return value


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _short(error: Exception) -> str:
    return "too deep" if isinstance(error, RecursionError) else str(error)
