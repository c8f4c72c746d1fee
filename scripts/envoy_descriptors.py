"""Write the descriptor set by which Envoy turns JSON into calls and answers into JSON.

    python -m scripts.envoy_descriptors cove.binpb

It is that of our protos, where only those RPCs have a path that Envoy answers as the gateway's own
HTTP does: others go there. Envoy knows no `response_body`, no 201, and no failure after the first
event of a stream. The messages of google.rpc are in it although no RPC names them: without them
Envoy cannot show why a call failed.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from google.api import annotations_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import error_details_pb2, status_pb2

from cove.gateway.v1 import gateway_pb2
from gateway.rest.routes import Route, Routes


def transcoded() -> frozenset[str]:
    """The full names of the RPCs that have a path in the set."""
    routes = [*Routes.of(gateway_pb2.DESCRIPTOR.services_by_name.values())]
    others = {each.rpc.full_name for each in routes if not _is_alike(each)}
    return frozenset(each.rpc.full_name for each in routes) - others


def descriptor_set() -> FileDescriptorSet:
    """Each file once, after those that it needs."""
    files: dict[str, FileDescriptor] = {}
    for module in (gateway_pb2, status_pb2, error_details_pb2):
        for file in _with_needed(module.DESCRIPTOR):
            files.setdefault(file.name, file)
    found = FileDescriptorSet()
    for file in files.values():
        file.CopyToProto(found.file.add())
    kept = transcoded()
    for made in found.file:
        for service in made.service:
            for method in service.method:
                if f"{made.package}.{service.name}.{method.name}" not in kept:
                    method.options.ClearExtension(annotations_pb2.http)
    return found


def _is_alike(route: Route) -> bool:
    streams = route.rpc.client_streaming or route.rpc.server_streaming
    return not (streams or route.response_body or route.creates)


def _with_needed(file: FileDescriptor) -> Iterator[FileDescriptor]:
    for needed in file.dependencies:
        yield from _with_needed(needed)
    yield file


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m scripts.envoy_descriptors FILE", file=sys.stderr)
        return 2
    Path(arguments[0]).write_bytes(descriptor_set().SerializeToString(deterministic=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
