"""The comments of the protos, by the full names of what they are about."""

import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from grpc_tools import protoc

from cove.errors.v1 import errors_pb2
from cove.gateway.v1 import gateway_pb2

PROTOS: Final = Path(__file__).parents[2] / "protos"

# Which list of a message, an enum or a service a number in a path of SourceCodeInfo means.
_FILE: Final = {4: "message_type", 5: "enum_type", 6: "service"}
_INSIDE: Final = {
    "DescriptorProto": {2: "field", 3: "nested_type", 4: "enum_type", 8: "oneof_decl"},
    "EnumDescriptorProto": {2: "value"},
    "ServiceDescriptorProto": {2: "method"},
}
_PROTO_NAME: Final = re.compile(r"(?<=`)[a-z0-9]+(?:_[a-z0-9]+)+(?=`)")


def read() -> Mapping[str, str]:
    """Values of enums are named below their enum."""
    found: dict[str, str] = {}
    for file in _compiled().file:
        for location in file.source_code_info.location:
            text, name = location.leading_comments, _name(file, location.path)
            if text and name:
                found[f"{file.package}.{name}"] = _unwrapped(text)
    return found


def _compiled() -> descriptor_pb2.FileDescriptorSet:
    """Only the text knows its comments. What it imports of others comes from the stubs."""
    with tempfile.TemporaryDirectory() as folder:
        imported, compiled = Path(folder, "imported"), Path(folder, "compiled")
        imported.write_bytes(_imported().SerializeToString())
        arguments = [
            "protoc",
            f"-I{PROTOS}",
            f"-I{files('grpc_tools') / '_proto'}",  # Else those of Debian's protobuf, where it is.
            f"--descriptor_set_in={imported}",
            "--include_source_info",
            f"--descriptor_set_out={compiled}",
            *map(str, sorted(PROTOS.rglob("*.proto"))),
        ]
        if protoc.main(arguments):
            sys.exit("protos/ cannot be compiled")
        return descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes())


def _imported() -> descriptor_pb2.FileDescriptorSet:
    files: dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        for each in file.dependencies:
            add(each)
        files.setdefault(file.name, file)

    for ours in (errors_pb2, gateway_pb2):
        add(ours.DESCRIPTOR)
    found = descriptor_pb2.FileDescriptorSet()
    for name, file in files.items():
        if not name.startswith("cove/"):
            file.CopyToProto(found.file.add())
    return found


def _name(file: Any, path: Sequence[int]) -> str:
    """The dotted name that a path leads to; empty: it is not one of ours."""
    if len(path) % 2:
        return ""
    names: list[str] = []
    at, lists = file, _FILE
    for number, index in zip(path[::2], path[1::2], strict=True):
        if number not in lists:
            return ""
        at = getattr(at, lists[number])[index]
        names.append(at.name)
        lists = _INSIDE.get(type(at).__name__, {})
    return ".".join(names)


def _unwrapped(text: str) -> str:
    """Lines joined to paragraphs; a line that begins with `*` is one of its own."""
    paragraphs: list[str] = []
    for line in [*map(str.strip, text.splitlines()), ""]:
        if not line:
            paragraphs.append("")
        elif line.startswith("* ") or not paragraphs or not paragraphs[-1]:
            paragraphs.append(line)
        else:
            paragraphs[-1] += f" {line}"
    return re.sub(r"\n\n+", "\n\n", "\n".join(paragraphs)).strip()


def in_json_names(text: str) -> str:
    """The same, with fields in backticks named as JSON names them."""
    return _PROTO_NAME.sub(lambda found: camel(found[0]), text)


def camel(name: str) -> str:
    """As JSON writes the name of a field."""
    return re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name)
