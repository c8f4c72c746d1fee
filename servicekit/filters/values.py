"""What stands on the right of a comparison, read as what the field on its left holds."""

import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NoReturn

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from servicekit.filters.fields import Field, Kind
from servicekit.filters.syntax import Comparison, FilterInvalid, Value

_COMPARE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    ":": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NUMBER: Final = re.compile(r"-?[0-9]{1,19}([.][0-9]{1,9})?")
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})"
)
_DURATION: Final = re.compile(r"-?[0-9]{1,12}([.][0-9]{1,9})?s")


@dataclass(frozen=True, slots=True)
class Test:
    """Tells of a value that is there whether it passes."""

    holds: Callable[[Any], bool]
    only: Collection[Any] | None = None
    """The values that pass, where they can be listed."""


def test(field: Field, comparison: Comparison) -> Test:
    """Raises `FilterInvalid` for a value that is not of the field's kind."""
    value = comparison.value
    if comparison.operator == ":" and value.any:
        return Test(lambda found: bool(found) or field.kind in _IS_THERE)
    match field.kind:
        case Kind.TEXT:
            return _text(field, comparison)
        case Kind.LIST:
            one = _text(field, comparison).holds
            return Test(lambda found: any(map(one, found)))
        case Kind.MAP:
            return _key(value)
        case Kind.MESSAGE:
            _refuse(value, f"{'.'.join(field.path)}:*")
        case Kind.ENUM:
            return _enum(field, comparison)
    compare, other = _COMPARE[comparison.operator], _PARSE[field.kind](value)
    read = _nanoseconds if field.kind in _TIMES else None
    if read:
        return Test(lambda found: compare(read(found), other))
    return Test(lambda found: compare(found, other))


def _text(field: Field, comparison: Comparison) -> Test:
    value, prefix = comparison.value, field.collection
    parts = (value.parts[0].removeprefix(prefix), *value.parts[1:])
    sign = comparison.operator
    if len(parts) == 1:
        compare, other = _COMPARE[sign], parts[0]
        only = (other,) if sign in "=:" else None
        if not prefix:
            return Test(lambda found: compare(found, other), only)
        return Test(lambda found: compare(found.removeprefix(prefix), other), only)
    if sign not in ("=", "!=", ":"):
        raise FilterInvalid(value.at, value.text, f"no wildcard after {sign}", r"Write \* for a *.")
    wanted = sign != "!="
    return Test(lambda found: _like(found.removeprefix(prefix), parts) is wanted)


def _key(value: Value) -> Test:
    if len(value.parts) > 1:
        _refuse(value, "a key without wildcard, or *")
    key = value.text
    return Test(lambda found: key in found)


def _like(text: str, parts: tuple[str, ...]) -> bool:
    """Whether the parts come in the text in this order, from its start to its end."""
    first, *middle, last = parts
    if not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return at <= end


def _enum(field: Field, comparison: Comparison) -> Test:
    assert field.enum
    numbers = {value.name: value.number for value in field.enum.values}
    prefix = _prefix(list(numbers))
    text = comparison.value.text.upper()
    number = numbers.get(text, numbers.get(prefix + text))
    if number is None:
        allowed = ", ".join(name.removeprefix(prefix) for name, each in numbers.items() if each)
        _refuse(comparison.value, allowed)
    if comparison.operator == "!=":
        others = frozenset(numbers.values()) - {number}
        return Test(lambda found: found != number, others)
    return Test(lambda found: found == number, (number,))


def _prefix(names: list[str]) -> str:
    """What all of them begin with, as far as the last underscore of it."""
    low, high = min(names), max(names)
    common = 0
    while common < min(len(low), len(high)) and low[common] == high[common]:
        common += 1
    return low[: low.rfind("_", 0, common) + 1]


def _number(value: Value) -> Decimal:
    if not _NUMBER.fullmatch(value.text):
        _refuse(value, "a number")
    return Decimal(value.text)


def _truth(value: Value) -> bool:
    if value.text not in ("true", "false"):
        _refuse(value, "true, false")
    return value.text == "true"


def _time(value: Value) -> int:
    return _read(value, Timestamp(), _TIME, "a time of RFC 3339, such as 2026-01-31T12:00:00Z")


def _duration(value: Value) -> int:
    return _read(value, Duration(), _DURATION, "a duration in seconds, such as 90s or 1.5s")


def _read(value: Value, into: Timestamp | Duration, form: "re.Pattern[str]", allowed: str) -> int:
    if not form.fullmatch(value.text):
        _refuse(value, allowed)
    try:
        into.FromJsonString(value.text)
    except ValueError:  # No such day, say.
        _refuse(value, allowed)
    return _nanoseconds(into)


def _nanoseconds(found: Any) -> int:
    nanoseconds: int = found.seconds * 10**9 + found.nanos
    return nanoseconds


def _refuse(value: Value, allowed: str) -> NoReturn:
    raise FilterInvalid(value.at, value.text, allowed)


_TIMES: Final = frozenset({Kind.TIME, Kind.DURATION})
_IS_THERE: Final = _TIMES | {Kind.MESSAGE}
"""Kinds whose being there says all: an empty message is one, too."""
_PARSE: Final[Mapping[Kind, Callable[[Value], Any]]] = {
    Kind.NUMBER: _number,
    Kind.TRUTH: _truth,
    Kind.TIME: _time,
    Kind.DURATION: _duration,
}
