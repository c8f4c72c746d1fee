"""Messages of any type, drawn from descriptors: as their rules want them, nearly, or not at all."""

import re
from typing import Any, Final

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from buf.validate import validate_pb2

Draw = Any
_DEEP: Final = 4
_WORDS: Final = st.sampled_from(
    ["", "a", "README.md", "../x", "/", "\0", "é", "x" * 300, "main", "HEAD", "true", "-", "--help"]
)
_TEXT: Final = _WORDS | st.text(max_size=20)
_INT32: Final = st.sampled_from([0, 1, -1, 7, 1000, 2**31 - 1, -(2**31)])
_INT64: Final = _INT32 | st.sampled_from([2**63 - 1, -(2**63), 2**40])
_UINT64: Final = st.sampled_from([0, 1, 2**32 - 1])
_COUNTS: Final = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)
_NUMBERS: Final = {
    FieldDescriptor.CPPTYPE_INT32: _INT32,
    FieldDescriptor.CPPTYPE_INT64: _INT64,
    FieldDescriptor.CPPTYPE_UINT32: _UINT64,
    FieldDescriptor.CPPTYPE_UINT64: _UINT64,
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
}


class Drawer:
    """Draws messages; `names` are those of resources that there are."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._lax = 0
        """In so many of ten places the rules are not looked at."""

    def message(self, kind: Descriptor) -> st.SearchStrategy[Message]:
        """Most are as their rules want them, some in all but a few places."""

        def drawn(draw: Draw) -> Message:
            self._lax = draw(st.sampled_from([0, 0, 0, 1, 10]))
            return self._drawn(draw, kind, _DEEP)

        return st.composite(drawn)()

    def data(self, kind: Descriptor) -> st.SearchStrategy[bytes]:
        """Bytes of a message; some of them changed in places, and some of no message."""
        whole = self.message(kind).map(_serialized)
        return whole | whole.map(bytes) | st.composite(_mutated)(whole) | st.binary(max_size=200)

    def _drawn(self, draw: Draw, kind: Descriptor, deep: int) -> Message:
        made = message_factory.GetMessageClass(kind)()
        chosen = {draw(st.sampled_from(list(each.fields))).name for each in kind.oneofs}
        for field in kind.fields:
            if field.containing_oneof and field.name not in chosen:
                continue
            if self._wanted(draw, field) and (deep or not field.message_type):
                self._fill(draw, made, field, deep - 1)
        return made

    def _wanted(self, draw: Draw, field: FieldDescriptor) -> bool:
        rules = _rules(field)
        must = rules.required or (rules.string.pattern and not rules.ignore)
        if field.containing_oneof or (must and not self._free(draw)):
            return True
        return bool(draw(st.integers(0, 2)) == 0)

    def _free(self, draw: Draw) -> bool:
        return bool(self._lax and draw(st.integers(0, 9)) < self._lax)

    def _fill(self, draw: Draw, made: Message, field: FieldDescriptor, deep: int) -> None:
        there = getattr(made, field.name)
        if field.message_type and field.message_type.GetOptions().map_entry:
            key, value = field.message_type.fields
            for _ in range(draw(st.integers(0, 3))):
                if value.message_type:
                    there[draw(self._scalar(draw, key))].CopyFrom(
                        self._drawn(draw, value.message_type, deep)
                    )
                else:
                    there[draw(self._scalar(draw, key))] = draw(self._scalar(draw, value))
        elif field.is_repeated:
            for _ in range(draw(st.integers(0, 3))):
                if field.message_type:
                    there.append(self._drawn(draw, field.message_type, deep))
                else:
                    there.append(draw(self._scalar(draw, field)))
        elif field.message_type:
            there.SetInParent()
            there.CopyFrom(self._drawn(draw, field.message_type, deep))
        else:
            setattr(made, field.name, draw(self._scalar(draw, field)))

    def _scalar(self, draw: Draw, field: FieldDescriptor) -> st.SearchStrategy[Any]:
        kind = field.cpp_type
        free = self._free(draw)
        if field.enum_type is not None:
            known = st.sampled_from([each.number for each in field.enum_type.values])
            return known | st.sampled_from([-1, 999]) if free else known
        if kind != FieldDescriptor.CPPTYPE_STRING:
            return _NUMBERS[kind] if free or kind not in _COUNTS else st.integers(0, 9)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=40) | _WORDS.map(str.encode)
        return _TEXT if free else self._text(field)

    def _text(self, field: FieldDescriptor) -> st.SearchStrategy[str]:
        rules = _rules(field).string
        if rules.uuid:
            return st.uuids().map(str)
        if not rules.pattern:
            return _TEXT
        if fitting := [name for name in self._names if re.search(rules.pattern, name)]:
            return st.sampled_from(fitting)
        return st.from_regex(rules.pattern, fullmatch=True).map(lambda text: text[:200])


def _rules(field: FieldDescriptor) -> Any:
    extension: Any = validate_pb2.field
    return field.GetOptions().Extensions[extension]


def _serialized(message: Message) -> bytes:
    return message.SerializePartialToString()


def _mutated(draw: Draw, whole: st.SearchStrategy[bytes]) -> bytes:
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 2)):
            case 0:
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=3))
            case 1:
                del data[at : at + draw(st.integers(1, 8))]
            case _:
                data[at:at] = data[: draw(st.integers(0, 40))]
    return bytes(data)
