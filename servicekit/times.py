"""Whether the times in a message are times: protobuf takes any number off the wire, and its own
conversions raise on those that are none."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

_TIMESTAMP: Final = "google.protobuf.Timestamp"
_DURATION: Final = "google.protobuf.Duration"
_FIRST, _LAST = -62_135_596_800, 253_402_300_799
"""Seconds of the years 1 and 9999."""
_LONGEST: Final = 315_576_000_000
_SECOND: Final = 10**9


def misfits(message: Message, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The path of each time that is none, and what is wrong with it."""
    for field, value in message.ListFields():
        for name, each in _values(field, value):
            path = f"{prefix}{name}"
            kind = each.DESCRIPTOR.full_name
            if kind == _TIMESTAMP and not _is_timestamp(each):
                yield path, "is no time of the years 1 to 9999"
            elif kind == _DURATION and not _is_duration(each):
                yield path, "is no duration of up to 10,000 years"
            elif has_times(each.DESCRIPTOR):
                yield from misfits(each, f"{path}.")


def _values(field: FieldDescriptor, value: Any) -> Iterator[tuple[str, Any]]:
    kind = field.message_type
    if kind is None:
        return
    if not field.is_repeated:
        yield field.name, value
    elif kind.GetOptions().map_entry:
        if kind.fields_by_name["value"].message_type:
            for key, each in value.items():
                yield f"{field.name}[{key!r}]", each
    else:
        for index, each in enumerate(value):
            yield f"{field.name}[{index}]", each


def _is_timestamp(value: Any) -> bool:
    return bool(_FIRST <= value.seconds <= _LAST and 0 <= value.nanos < _SECOND)


def _is_duration(value: Any) -> bool:
    alike = value.seconds * value.nanos >= 0
    return bool(alike and abs(value.seconds) <= _LONGEST and abs(value.nanos) < _SECOND)


@lru_cache(maxsize=4096)
def has_times(kind: Descriptor) -> bool:
    """Whether somewhere in messages of this type there may be a time."""
    seen, todo = set[str](), [kind]
    while todo:
        each = todo.pop()
        if each.full_name in (_TIMESTAMP, _DURATION):
            return each is not kind
        if each.full_name not in seen:
            seen.add(each.full_name)
            todo += [field.message_type for field in each.fields if field.message_type]
    return False
