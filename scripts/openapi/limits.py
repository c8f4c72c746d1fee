"""The rules of protovalidate on a field, as JSON Schema says them.

A rule that has no form here stops the generator: what a caller is refused for
is never left out of the document by oversight.
"""

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor import FieldDescriptor

from buf.validate import validate_pb2

Schema: TypeAlias = dict[str, Any]

DURATION: Final = r"^-?[0-9]+(\.[0-9]{1,9})?s$"
POSITIVE_DURATION: Final = DURATION.replace("-?", "")

_BOUNDS: Final = {
    "gt": ("exclusiveMinimum", "more than"),
    "gte": ("minimum", "at least"),
    "lt": ("exclusiveMaximum", "less than"),
    "lte": ("maximum", "at most"),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """`notes` are the limits that JSON Schema has no word for, in words of ours."""

    keywords: Schema = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Rules:
    """`said` is what no form was found for yet. `textual`: see `limits_of`."""

    said: dict[str, Any]
    textual: bool
    may_be_zero: bool

    def renamed(self, names: Mapping[str, str]) -> Schema:
        return {new: self.said.pop(old) for old, new in names.items() if old in self.said}

    def bounds(self) -> dict[str, Any]:
        return {rule: self.said.pop(rule) for rule in _BOUNDS if rule in self.said}


def rules_of(proto_field: FieldDescriptor) -> Any:
    extensions: Any = proto_field.GetOptions().Extensions
    return extensions[validate_pb2.field]


def limits_of(rules: Any, name: str, *, textual: bool) -> Limits:
    """`textual`: a number is written as a string, as JSON does with 64 bits."""
    notes = [rule.message for rule in rules.cel]
    kind = rules.WhichOneof("type")
    if kind is None:
        return Limits(notes=notes)
    said = {found.name: value for found, value in getattr(rules, kind).ListFields()}
    may_be_zero = rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE
    made = _KINDS.get(kind, _number)(_Rules(said, textual, may_be_zero))
    if said:
        sys.exit(f"{name}: no form in OpenAPI is known here for {kind}.{', '.join(said)}")
    return Limits(made.keywords, [*made.notes, *notes])


def _string(rules: _Rules) -> Limits:
    said = rules.said
    keywords: Schema = {}
    notes = []
    if said.pop("uuid", False):
        keywords["format"] = "uuid"
    if not rules.may_be_zero:
        keywords |= rules.renamed({"min_len": "minLength"})
    keywords |= rules.renamed({"max_len": "maxLength"})
    if "max_bytes" in said:
        keywords["maxLength"] = maximum = said.pop("max_bytes")
        notes.append(f"at most {maximum} bytes of UTF-8")
    if "pattern" in said:
        pattern = _printable(said.pop("pattern"))
        keywords["pattern"] = f"^$|{pattern}" if rules.may_be_zero else pattern
    return Limits(keywords, notes)


def _bytes(rules: _Rules) -> Limits:
    if "max_len" not in rules.said:
        return Limits()
    maximum = rules.said.pop("max_len")
    return Limits({"maxLength": (maximum + 2) // 3 * 4}, [f"at most {maximum} bytes"])


def _number(rules: _Rules) -> Limits:
    bounds = rules.bounds()
    if rules.may_be_zero and not rules.textual:
        keywords = {"minimum": 0, "maximum": bounds["lte"]} if "lte" in bounds else {}
        return Limits(keywords, ["0, or " + words for words in _in_words(bounds, "")])
    if not rules.textual:
        return Limits({_BOUNDS[rule][0]: value for rule, value in bounds.items()})
    keywords = {"pattern": "^[0-9]+$"} if _lowest(bounds) >= 0 else {}
    or_zero = "0, or " if rules.may_be_zero else ""
    return Limits(keywords, [or_zero + words for words in _in_words(bounds, "")])


def _duration(rules: _Rules) -> Limits:
    bounds = {rule: value.ToTimedelta().total_seconds() for rule, value in rules.bounds().items()}
    keywords: Schema = {"pattern": POSITIVE_DURATION} if _lowest(bounds) >= 0 else {}
    return Limits(keywords, _in_words(bounds, "s"))


def _enum(rules: _Rules) -> Limits:
    rules.said.pop("defined_only", None)  # JSON has names only, and knows no other.
    if list(rules.said.get("not_in", ())) == [0]:
        del rules.said["not_in"]  # Which makes it required: see `Schemas.required`.
    return Limits()


def _repeated(rules: _Rules) -> Limits:
    rules.said.pop("items", None)  # Limits of the items, not of the list.
    return Limits(rules.renamed({"min_items": "minItems", "max_items": "maxItems"}))


def _map(rules: _Rules) -> Limits:
    rules.said.pop("values", None)  # As above.
    keys = rules.said.pop("keys", None)
    keywords = rules.renamed({"min_pairs": "minProperties", "max_pairs": "maxProperties"})
    if keys is not None:
        keywords["propertyNames"] = limits_of(keys, "a key", textual=False).keywords
    return Limits(keywords)


_KINDS: Final[Mapping[str, Callable[[_Rules], Limits]]] = {
    "string": _string,
    "bytes": _bytes,
    "duration": _duration,
    "enum": _enum,
    "repeated": _repeated,
    "map": _map,
}


def _lowest(bounds: Mapping[str, float]) -> float:
    return bounds.get("gt", bounds.get("gte", -1))


def _in_words(bounds: Mapping[str, float], unit: str) -> list[str]:
    """What a pattern does not say already."""
    words = [
        f"{_BOUNDS[rule][1]} {value if value % 1 else int(value)}{unit}"
        for rule, value in bounds.items()
        if (rule, value) != ("gte", 0)
    ]
    return [", ".join(words)] if words else []


def _printable(pattern: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]", lambda found: f"\\x{ord(found[0]):02x}", pattern)
