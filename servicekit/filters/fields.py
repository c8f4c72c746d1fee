"""Which fields a filter may name, what kind of thing each holds, and how it is read."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from servicekit.filters.syntax import Comparison, FilterInvalid

Reader: TypeAlias = Callable[[Any], Any]
"""Takes a message. None: it does not have the field."""


class Kind(Enum):
    """What a field holds."""

    TEXT = "text"
    NUMBER = "number"
    TIME = "time"
    DURATION = "duration"
    TRUTH = "true or false"
    ENUM = "one of a list"
    MAP = "map of text"
    LIST = "list of text"
    MESSAGE = "message"


_ORDERED: Final = ("=", "!=", "<", "<=", ">", ">=", ":")
OPERATORS: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.TEXT: _ORDERED,
    Kind.NUMBER: _ORDERED,
    Kind.TIME: _ORDERED,
    Kind.DURATION: _ORDERED,
    Kind.TRUTH: ("=", "!=", ":"),
    Kind.ENUM: ("=", "!=", ":"),
    Kind.MAP: (":",),
    Kind.LIST: (":",),
    Kind.MESSAGE: (":",),
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field as a comparison names it."""

    path: tuple[str, ...]
    kind: Kind
    read: Reader
    enum: EnumDescriptor | None = None
    collection: str = ""
    """What values may be written with or without, and are compared without: `environments/`."""


class Fields:
    """The fields of a message that a filter may name: the one place that says which.

    A map of strings is named as a whole, `labels:key`, and by key, `labels.key`.
    """

    def __init__(self, descriptor: Descriptor, paths: Iterable[str], *, collection: str) -> None:
        self.names = tuple(paths)
        self._fields = {
            path: _field(descriptor, tuple(path.split(".")), collection) for path in self.names
        }

    def kind(self, name: str) -> Kind:
        return self._fields[name].kind

    def find(self, comparison: Comparison) -> Field:
        """The field that a comparison names. Raises `FilterInvalid`."""
        path = comparison.path
        field = self._fields.get(".".join(path)) or self._member(path)
        if field is None:
            name = ".".join(path)
            raise FilterInvalid(comparison.at, name, f"the fields {', '.join(self.names)}")
        operators = OPERATORS[field.kind]
        if comparison.operator not in operators:
            name = ".".join(path)
            raise FilterInvalid(
                comparison.at, f"{name} {comparison.operator}", f"{name} with {' '.join(operators)}"
            )
        return field

    def _member(self, path: tuple[str, ...]) -> Field | None:
        """The entry of a map that a path leads to: its key is what is left of the path."""
        for size in range(len(path) - 1, 0, -1):
            field = self._fields.get(".".join(path[:size]))
            if field and field.kind is Kind.MAP:
                key = ".".join(path[size:])
                return Field((*field.path, key), Kind.TEXT, _entry(field.read, key))
        return None


def _field(descriptor: Descriptor, path: tuple[str, ...], collection: str) -> Field:
    *before, last = path
    for name in before:
        inner = descriptor.fields_by_name[name].message_type
        assert inner, f"{name} is no message"
        descriptor = inner
    leaf = descriptor.fields_by_name[last]
    return Field(
        path,
        _kind(leaf),
        _reader(path, present=leaf.has_presence),
        leaf.enum_type,
        collection if path == ("name",) else "",
    )


def _kind(leaf: FieldDescriptor) -> Kind:
    if leaf.message_type and leaf.message_type.GetOptions().map_entry:
        assert leaf.message_type.fields_by_name["value"].type == FieldDescriptor.TYPE_STRING
        return Kind.MAP
    if leaf.is_repeated:
        assert leaf.type == FieldDescriptor.TYPE_STRING
        return Kind.LIST
    if leaf.message_type:
        return {
            "google.protobuf.Timestamp": Kind.TIME,
            "google.protobuf.Duration": Kind.DURATION,
        }.get(leaf.message_type.full_name, Kind.MESSAGE)
    return {
        FieldDescriptor.CPPTYPE_STRING: Kind.TEXT,
        FieldDescriptor.CPPTYPE_BOOL: Kind.TRUTH,
        FieldDescriptor.CPPTYPE_ENUM: Kind.ENUM,
    }.get(leaf.cpp_type, Kind.NUMBER)


def _reader(path: tuple[str, ...], *, present: bool) -> Reader:
    """A message on the way that is not set has none of the fields behind it."""
    *before, last = path

    def read(message: Any) -> Any:
        for name in before:
            if not message.HasField(name):
                return None
            message = getattr(message, name)
        if present and not message.HasField(last):
            return None
        return getattr(message, last)

    return read


def _entry(read: Reader, key: str) -> Reader:
    def entry(message: Any) -> Any:
        entries = read(message)
        # `get` would make an entry of a map of messages; this one has strings.
        return None if entries is None else entries.get(key)

    return entry
