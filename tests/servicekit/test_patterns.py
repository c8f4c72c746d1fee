"""No caller is told a regular expression."""

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FileDescriptor

from buf.validate import validate_pb2
from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2
from cove.git.v1 import git_pb2
from cove.provider.v1 import provider_pb2
from cove.registry.v1 import audit_pb2, registry_pb2
from servicekit.patterns import words

_ROOTS = (gateway_pb2, registry_pb2, audit_pb2, git_pb2, provider_pb2, executor_pb2)


def files(each: FileDescriptor, seen: set[str]) -> Iterator[FileDescriptor]:
    if each.package.startswith("cove.") and each.name not in seen:
        seen.add(each.name)
        yield each
        for behind in each.dependencies:
            yield from files(behind, seen)


def patterns(message: Descriptor) -> Iterator[str]:
    for field in message.fields:
        extensions: Any = field.GetOptions().Extensions
        yield from of_rules(extensions[validate_pb2.field])
    for nested in message.nested_types:
        yield from patterns(nested)


def of_rules(rules: Any) -> Iterator[str]:
    if rules.string.pattern:
        yield rules.string.pattern
    if rules.HasField("repeated"):
        yield from of_rules(rules.repeated.items)
    if rules.HasField("map"):
        yield from of_rules(rules.map.keys)
        yield from of_rules(rules.map.values)


def test_each_pattern_of_the_protos_has_words() -> None:
    seen: set[str] = set()
    found = {
        pattern
        for root in _ROOTS
        for file in files(root.DESCRIPTOR, seen)
        for message in file.message_types_by_name.values()
        for pattern in patterns(message)
    }
    assert len(found) > 20
    assert [each for each in found if words(each) is None] == []


def test_names_are_told_by_their_form() -> None:
    id_ = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
    assert words(f"^workspaces/{id_}(/executions/{id_})?$") == (
        "`workspaces/<id>[/executions/<id>]`; an id is 1 to 63 lower-case letters, digits and "
        "hyphens, with no hyphen first or last"
    )
    assert words("^[xyz]+$") is None
