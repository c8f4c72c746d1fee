"""How long a call may take, as the contract says of its RPC."""

from collections.abc import Mapping
from functools import cache
from typing import Final

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from cove.gateway.v1 import gateway_pb2
from cove.options.v1 import options_pb2

_UNARY_DEADLINE: Final = 30.0
_MARGIN: Final = 5.0
"""Seconds that a call outlasts the server's own deadline, whose answer says more."""


def deadline(request: Message) -> float | None:
    """Seconds the server itself gives the call, and a margin; None: no limit."""
    found = _deadlines().get(request.DESCRIPTOR.full_name)
    if found is None:
        return None
    limit = found.duration.ToTimedelta().total_seconds() + _MARGIN
    if not found.added_field:
        return limit
    *parents, last = found.added_field.split(".")
    for name in parents:
        request = getattr(request, name)
    added = getattr(request, last) if request.HasField(last) else found.added_default
    return limit + float(added.ToTimedelta().total_seconds())


@cache
def _deadlines() -> Mapping[str, options_pb2.Deadline]:
    """The deadline of each RPC that has one, by the name of its request."""
    default = options_pb2.Deadline()
    default.duration.FromSeconds(int(_UNARY_DEADLINE))
    found: dict[str, options_pb2.Deadline] = {}
    for service in gateway_pb2.DESCRIPTOR.services_by_name.values():
        method: MethodDescriptor
        for method in service.methods:
            options = method.GetOptions()
            name = method.input_type.full_name
            if options.HasExtension(options_pb2.deadline):
                found[name] = options.Extensions[options_pb2.deadline]
            elif not method.server_streaming:
                found[name] = default
    return found
