"""Takes a request off the wire: its size, its form, and the rules of its proto."""

import json
from collections.abc import Callable
from typing import Any

import protovalidate
from google.protobuf.message import DecodeError

from servicekit.errors import InvalidArgument, Violation
from servicekit.status import MessageTooLarge
from servicekit.times import misfits


class Reader:
    """Makes checked requests of one type out of bytes."""

    def __init__(
        self, deserialize: Callable[[bytes], Any], validator: protovalidate.Validator, maximum: int
    ) -> None:
        self._deserialize = deserialize
        self._validator = validator
        self._maximum = maximum

    def read(self, data: bytes) -> Any:
        """Raises `MessageTooLarge` and `InvalidArgument`, which names every bad field."""
        if len(data) > self._maximum:
            raise MessageTooLarge("the message is too large", limit=str(self._maximum))
        try:
            request = self._deserialize(data)
        except DecodeError:
            raise InvalidArgument("", "the message is not of the request's type") from None
        check(self._validator, request)
        return request


def check(validator: protovalidate.Validator, message: Any) -> None:
    """Raises `InvalidArgument` if the message breaks rules of its proto, or has times that are
    none."""
    if wrong := [Violation(path, problem) for path, problem in misfits(message)]:
        raise InvalidArgument(wrong[0].field, wrong[0].problem, violations=wrong)
    broken = validator.collect_violations(message)
    if broken:
        violations = [_violation(each) for each in broken]
        first = violations[0]
        raise InvalidArgument(first.field, first.problem, violations=violations)


def _violation(found: protovalidate.Violation) -> Violation:
    rule = found.proto
    return Violation(_path(rule.field), rule.message or rule.rule_id)


def _path(field: Any) -> str:
    """For example `spec.env["HOME"].value` or `paths[3]`."""
    text = ""
    for element in field.elements if field else ():
        text += f".{element.field_name}" if text else element.field_name
        if element.subscript is not None:
            text += f"[{json.dumps(element.subscript.value)}]"
    return text
