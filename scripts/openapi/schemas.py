"""Messages and enums as the schemas of a document, in the JSON of proto3."""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Final, TypeAlias

import protovalidate
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor

from buf.validate import validate_pb2
from scripts.openapi.comments import in_json_names
from scripts.openapi.limits import DURATION, Limits, Schema, limits_of, rules_of

Kind: TypeAlias = Descriptor | EnumDescriptor

_INTEGERS: Final = {
    **dict.fromkeys((5, 15, 17), "int32"),
    **dict.fromkeys((7, 13), "uint32"),
    **dict.fromkeys((3, 16, 18), "int64"),
    **dict.fromkeys((4, 6), "uint64"),
}
_WELL_KNOWN: Final[Mapping[str, Schema]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": DURATION},
    "google.protobuf.FieldMask": {"type": "string"},
}
# Who keeps the short name when two packages have the same.
_PACKAGES: Final = ("gateway", "registry", "git", "provider", "executor", "mount", "errors")
# Generated clients have a File of their own: what is uploaded.
_RENAMED: Final = {"File": "FileInfo"}
_OUTPUT_ONLY: Final = "Output only."
_NEVER_SENT: Final = "Never sent."


class Side(Enum):
    """Requests have limits. What comes back has none: a repository holds what it holds."""

    REQUEST = "Input"
    RESPONSE = ""


class Schemas:
    """`components` is filled as messages are asked for."""

    def __init__(self, comments: Mapping[str, str], rpcs: Sequence[MethodDescriptor]) -> None:
        self.components: dict[str, Schema] = {}
        self._comments = comments
        self._names = _names(rpcs)
        self._validator = protovalidate.Validator()

    def message(
        self, kind: Descriptor, side: Side, *, without: Collection[str] = (), own: bool = False
    ) -> Schema:
        """A reference. `without`: fields that have another place; `own`: it is of one RPC only."""
        name = self._names[kind] + ("" if own else side.value)
        if name not in self.components:
            self.components[name] = {}  # Which ends a recursion.
            self.components[name] = self._object(kind, side, without)
        return {"$ref": f"#/components/schemas/{name}"}

    def event(self, kind: Descriptor) -> Schema:
        """As `message`, of an event of a stream: the last one may be a failure."""
        reference = self.message(kind, Side.RESPONSE, own=True)
        schema = self.components[self._names[kind]]
        status = {"$ref": "#/components/schemas/Status"}
        schema["properties"]["error"] = status | {"description": "The last event: it failed."}
        schema["minProperties"] = 1
        return reference

    def field(self, field: FieldDescriptor, side: Side, *, query: bool = False) -> Schema:
        """`query`: it is no JSON there; 64 bits have no need of being a string."""
        schema, limits = self._kind(field, side, query)
        described = self._description(field, limits.notes)
        return schema | limits.keywords | ({"description": described} if described else {})

    def required(self, kind: Descriptor) -> set[str]:
        """The fields without which no message of this kind is accepted."""
        empty = message_factory.GetMessageClass(kind)()
        broken = [violation.proto.field for violation in self._validator.collect_violations(empty)]
        return {at.elements[0].field_name for at in broken if at and len(at.elements) == 1}

    def comment(self, full_name: str) -> str:
        return in_json_names(self._comments[full_name])

    def is_output_only(self, field: FieldDescriptor) -> bool:
        return _OUTPUT_ONLY in self._comments[field.full_name]

    def _object(self, kind: Descriptor, side: Side, without: Collection[str]) -> Schema:
        fields = [
            field
            for field in kind.fields
            if field.name not in without
            and not (side is Side.REQUEST and self.is_output_only(field))
        ]
        schema: Schema = {
            "type": "object",
            "description": self.comment(kind.full_name),
            "properties": {field.json_name: self.field(field, side) for field in fields},
        }
        if _is_choice(kind):
            schema["maxProperties"] = 1
        if side is Side.REQUEST:
            extensions: Any = kind.GetOptions().Extensions
            rules = extensions[validate_pb2.message].cel
            schema["additionalProperties"] = False
            schema["description"] = _with_notes(schema["description"], [r.message for r in rules])
            needed = self.required(kind)
            required = [field.json_name for field in fields if field.name in needed]
            if required:
                schema["required"] = required
        return schema

    def _kind(self, field: FieldDescriptor, side: Side, query: bool) -> tuple[Schema, Limits]:
        """The schema of a field's values, and what of its limits is not in it yet."""
        rules = rules_of(field) if side is Side.REQUEST else validate_pb2.FieldRules()
        if _is_map(field):
            value = message_of(field).fields_by_name["value"]
            inner = self._limited(value, side, query, rules.map.values)
            return {"type": "object", "additionalProperties": inner}, _limits(field, rules)
        if field.is_repeated:
            items = self._limited(field, side, query, rules.repeated.items)
            return {"type": "array", "items": items}, _limits(field, rules)
        return self._single(field, side, query), _limits(field, rules, _is_text(field, query))

    def _limited(self, field: FieldDescriptor, side: Side, query: bool, rules: Any) -> Schema:
        """One value among several, which have limits of their own."""
        return (
            self._single(field, side, query)
            | _limits(field, rules, _is_text(field, query)).keywords
        )

    def _single(self, field: FieldDescriptor, side: Side, query: bool) -> Schema:
        if field.enum_type:
            return self._enum(field.enum_type)
        if field.message_type and field.message_type.full_name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[field.message_type.full_name])
        if field.message_type:
            return self.message(field.message_type, side)
        if number := _INTEGERS.get(field.type):
            if _is_text(field, query):
                return {"type": "string", "format": number, "pattern": "^-?[0-9]+$"}
            return {"type": "integer", "format": number}
        match field.type:
            case FieldDescriptor.TYPE_STRING:
                return {"type": "string"}
            case FieldDescriptor.TYPE_BYTES:
                return {"type": "string", "format": "byte", "contentEncoding": "base64"}
            case FieldDescriptor.TYPE_BOOL:
                return {"type": "boolean"}
        sys.exit(f"{field.full_name}: no form in OpenAPI is known here for its type")

    def _enum(self, kind: EnumDescriptor) -> Schema:
        name = self._names[kind]
        said = {value.name: self.comment(f"{kind.full_name}.{value.name}") for value in kind.values}
        sent = {value: text for value, text in said.items() if text != _NEVER_SENT}
        lines = [f"- `{value}`: {text}" for value, text in sent.items()]
        self.components[name] = {
            "type": "string",
            "description": "\n".join([self.comment(kind.full_name), "", *lines]),
            "enum": list(sent),
        }
        return {"$ref": f"#/components/schemas/{name}"}

    def _description(self, field: FieldDescriptor, notes: Sequence[str]) -> str:
        text = self.comment(field.full_name)
        choice = field.containing_oneof
        if choice and len(choice.fields) > 1 and not _is_choice(choice.containing_type):
            others = [f"`{each.json_name}`" for each in choice.fields]
            notes = [*notes, f"at most one of {', '.join(others)}"]
        return _with_notes(text, notes)


def _limits(field: FieldDescriptor, rules: Any, textual: bool = False) -> Limits:
    return limits_of(rules, field.full_name, textual=textual)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _is_text(field: FieldDescriptor, query: bool) -> bool:
    return not query and _INTEGERS.get(field.type, "").endswith("64")


def _is_choice(kind: Descriptor) -> bool:
    """Whether it is one `oneof` and nothing else."""
    return len(kind.oneofs) == 1 and len(kind.oneofs[0].fields) == len(kind.fields) > 1


def _with_notes(text: str, notes: Sequence[str]) -> str:
    sentences = [f"{note[0].upper()}{note[1:]}." for note in notes]
    return " ".join([text, *sentences]).strip()


def _names(rpcs: Sequence[MethodDescriptor]) -> Mapping[Kind, str]:
    """A short name for each message and enum that is reached; the package's only where two meet."""
    found = set(_reached([kind for rpc in rpcs for kind in (rpc.input_type, rpc.output_type)]))

    def rank(kind: Kind) -> tuple[int, str]:
        word = _package_word(kind)
        return _PACKAGES.index(word) if word in _PACKAGES else len(_PACKAGES), kind.full_name

    names: dict[Kind, str] = {}
    for kind in sorted(found, key=rank):
        short = kind.full_name.removeprefix(f"{kind.file.package}.").replace(".", "")
        short = _RENAMED.get(short, short)
        taken = short in names.values()
        names[kind] = f"{_package_word(kind).capitalize()}{short}" if taken else short
    return names


def _package_word(kind: Kind) -> str:
    return str(kind.file.package.split(".")[1])


def _reached(kinds: Sequence[Kind]) -> Iterator[Kind]:
    seen: set[Kind] = set()
    left: list[Any] = list(kinds)
    while left:
        kind = left.pop()
        if kind is None or kind in seen or kind.file.package.startswith("google."):
            continue
        seen.add(kind)
        yield kind
        if isinstance(kind, Descriptor):
            for field in kind.fields:
                left += [field.message_type, field.enum_type]


def field_at(kind: Descriptor, path: str) -> FieldDescriptor:
    """The field that a dotted path leads to."""
    *outer, last = path.split(".")
    for name in outer:
        kind = message_of(kind.fields_by_name[name])
    return kind.fields_by_name[last]


def message_of(field: FieldDescriptor) -> Descriptor:
    """What a field of a message's type holds."""
    assert field.message_type is not None
    return field.message_type
