"""Takes a request off the wire: its size, its form, and the rules of its proto."""

import json
from collections.abc import Callable
from typing import Any, Final

import protovalidate
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from servicekit.errors import InvalidArgument, Violation
from servicekit.patterns import words
from servicekit.status import MessageTooLarge
from servicekit.times import has_times, misfits

_VALIDATOR: Final = protovalidate.Validator()
"""One for all of the process: the first message that one is asked about costs it 25 ms."""


class Reader:
    """Makes checked requests of one type out of bytes."""

    def __init__(
        self,
        deserialize: Callable[[bytes], Any],
        kind: Descriptor,
        maximum: int,
    ) -> None:
        self._deserialize = deserialize
        self._timed = has_times(kind)
        self._maximum = maximum

    def read(self, data: bytes) -> Any:
        """Raises `MessageTooLarge` and `InvalidArgument`, which names every bad field."""
        if len(data) > self._maximum:
            raise MessageTooLarge("the message is too large", limit=str(self._maximum))
        try:
            request = self._deserialize(data)
        except DecodeError:
            raise InvalidArgument("", "the message is not of the request's type") from None
        # Times first: the rules cannot be asked about those that are none.
        wrong = [Violation(*each) for each in misfits(request)] if self._timed else []
        if wrong := wrong or [_violation(each) for each in _VALIDATOR.collect_violations(request)]:
            raise InvalidArgument(wrong[0].field, wrong[0].problem, violations=wrong)
        return request


def _violation(found: protovalidate.Violation) -> Violation:
    rule = found.proto
    problem = rule.message or rule.rule_id
    if rule.rule_id == "string.pattern" and (told := words(found.rule_value)):
        problem = f"must be {told}"
    return Violation(_path(rule.field), problem)


def _path(field: Any) -> str:
    """For example `spec.env["HOME"].value` or `paths[3]`."""
    text = ""
    for element in field.elements if field else ():
        text += f".{element.field_name}" if text else element.field_name
        if element.subscript is not None:
            text += f"[{json.dumps(element.subscript.value)}]"
    return text
