"""A valid request for every RPC of the gateway, made from its descriptor and its rules.

So an RPC is asked the day it is added; one whose rules nothing here can obey fails its tests.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import protovalidate
from google.api import annotations_pb2
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from buf.validate import validate_pb2
from cove.gateway.v1 import gateway_pb2
from cove.options.v1 import options_pb2
from cove.options.v1.options_pb2 import Access

METHODS: Final[list[MethodDescriptor]] = [
    method
    for service in gateway_pb2.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
WORKSPACE: Final = "workspaces/"
_VALUES: Final = ("x", "main", "a" * 40, "1", "HOME", "tokens/none", "https://example.org/x.git")
"""One of them obeys the pattern of any string that names no workspace."""
_CHILD: Final = "child"
_OF_MESSAGES: Final[Mapping[str, Callable[[Any], object]]] = {
    "execution_spec.argv_or_script": lambda spec: spec.argv.append("true"),
}
"""How to obey rules that are about several fields, by their ids."""
_VALIDATOR: Final = protovalidate.Validator()
_DEEPEST: Final = 20


def access(method: MethodDescriptor) -> Access:
    found: Access = method.GetOptions().Extensions[options_pb2.access]
    return found


def names_a_workspace(method: MethodDescriptor) -> bool:
    """Whether its resource is a workspace, or something within one."""
    path = access(method).resource
    if not path:
        return False
    kind: Descriptor = method.input_type
    *outer, last = path.split(".")
    for name in outer:
        field = kind.fields_by_name[name]
        assert field.message_type is not None
        kind = field.message_type
    pattern: str = rules_of(kind.fields_by_name[last]).string.pattern
    return pattern.startswith(f"^{WORKSPACE}")


def request(method: MethodDescriptor, workspace: str) -> Any:
    """The least that obeys the rules, about this workspace: a name such as `workspaces/demo`."""
    made = message_factory.GetMessageClass(method.input_type)()
    path = access(method).resource
    if path:
        target = made
        *outer, last = path.split(".")
        for name in outer:
            target = getattr(target, name)
            target.SetInParent()
        field = target.DESCRIPTOR.fields_by_name[last]
        setattr(target, last, _text(field, workspace))
    for _ in range(_DEEPEST):
        broken = _VALIDATOR.collect_violations(made)
        if not broken:
            return _begun(made) if method.client_streaming else made
        for each in broken:
            _obey(made, each.proto, workspace)
    raise AssertionError(f"{method.full_name}: {[each.proto for each in broken]}")


def _begun(first: Any) -> Any:
    """The first message of a stream says what later ones may leave out."""
    for field in first.DESCRIPTOR.fields:
        of = field.containing_oneof  # One of its own, made by protoc, has an `optional` field.
        if field.message_type is None and of is not None and len(of.fields) == 1:
            setattr(first, field.name, field.default_value)
    return first


def rules_of(field: Any) -> Any:
    extensions: Any = field.GetOptions().Extensions
    return extensions[validate_pb2.field]


def _obey(message: Any, violation: Any, workspace: str) -> None:
    elements = list(violation.field.elements)
    if obey := _OF_MESSAGES.get(violation.rule_id):
        for element in elements:
            message = getattr(message, element.field_name)
        obey(message)
        return
    assert elements, f"{message.DESCRIPTOR.full_name}: {violation.message}"
    for element in elements[:-1]:
        message = getattr(message, element.field_name)
    last = elements[-1].field_name
    if last in message.DESCRIPTOR.oneofs_by_name:
        last = message.DESCRIPTOR.oneofs_by_name[last].fields[0].name
    field = message.DESCRIPTOR.fields_by_name[last]
    if field.is_repeated:
        _fill(message, field, workspace)
    elif field.message_type is not None:
        getattr(message, last).SetInParent()
        if field.message_type.full_name == "google.protobuf.Duration":
            getattr(message, last).seconds = 1
        if field.message_type.full_name == "google.protobuf.FieldMask":
            getattr(message, last).paths.append("x")
    elif field.enum_type is not None:
        setattr(message, last, field.enum_type.values[1].number)
    elif field.type == FieldDescriptor.TYPE_STRING:
        setattr(message, last, _text(field, workspace))
    elif field.type == FieldDescriptor.TYPE_BYTES:
        setattr(message, last, b"x" * max(1, rules_of(field).bytes.len))
    else:
        setattr(message, last, 1)


def _fill(message: Any, field: FieldDescriptor, workspace: str) -> None:
    values = getattr(message, field.name)
    del values[:]
    rules = rules_of(field).repeated
    for number in range(max(1, rules.min_items)):
        if field.message_type is not None:
            values.add()
        elif rules.items.string.pattern.startswith(f"^{WORKSPACE}"):
            values.append(workspace if number == 0 else f"{workspace}{number}")
        else:
            values.append("x" * (number + 1))


def _text(field: Any, workspace: str) -> str:
    pattern = rules_of(field).string.pattern
    candidates = (workspace, *(f"{workspace}/{kind}/{_CHILD}" for kind in _KINDS), *_VALUES)
    for each in candidates if pattern.startswith(f"^{WORKSPACE}") else _VALUES:
        if re.search(pattern, each):
            return each
    raise AssertionError(f"{field.full_name}: nothing known here matches {pattern}")


_KINDS: Final = ("executions", "snapshots")


class Http:
    """How a request goes over HTTP, by the first of its routes."""

    def __init__(self, method: MethodDescriptor, message: Any) -> None:
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        self.verb = str(rule.WhichOneof("pattern"))
        template = str(getattr(rule, self.verb))
        self.path = re.sub(r"\{([^=}]+)=?[^}]*\}", lambda found: _at(message, found[1]), template)
        self.body: Any = None
        self.query = {"offset": "0"} if method.name == "StreamInput" else {}
        self.raw = rule.body and _is_raw(method, rule.body)
        if rule.body and not self.raw:
            said = message if rule.body == "*" else getattr(message, rule.body)
            self.body = json_format.MessageToDict(said)
            for path in re.findall(r"\{([^=}]+)", template):
                _remove(self.body, path if rule.body == "*" else path.partition(".")[2])


def routed() -> Iterator[MethodDescriptor]:
    """Those that have a path."""
    for method in METHODS:
        if method.GetOptions().HasExtension(annotations_pb2.http):
            yield method


def _is_raw(method: MethodDescriptor, body: str) -> bool:
    """Whether the body is bytes as they are, not JSON."""
    field = method.input_type.fields_by_name.get(body)
    return method.client_streaming or (field is not None and field.message_type is None)


def _at(message: Any, path: str) -> str:
    for name in path.split("."):
        message = getattr(message, name)
    return str(message) or "x"


def _remove(body: Any, path: str) -> None:
    name = re.sub(r"_(\w)", lambda found: found[1].upper(), path)
    if "." not in name:
        body.pop(name, None)
