"""What the options on an RPC ask of each call: who may make it, how long it may take."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from cove.options.v1 import options_pb2
from cove.options.v1.options_pb2 import Role

_UNARY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Policy:
    """The options of one RPC, ready to be applied."""

    role: Role.ValueType
    """The least role; unspecified: the RPC has no access option and is refused."""

    limit: Callable[[Any], float | None]
    """Seconds that a call with this request may take; None: no limit."""

    fixed: float | None = None
    """The same, where it is so for every request; None: no limit, or not so."""

    endless: bool = False
    """Whether no request of it has a limit."""

    reads: bool = False
    """Whether it changes nothing."""

    lasts: bool = False
    """Whether a call may take more than the usual half a minute."""

    resource: str = ""
    """Field that names what the role is needed on; empty: the tenant itself."""

    unshared: bool = False
    """Whether no share of a workspace may call it, whatever it names."""


def method_of(path: str) -> MethodDescriptor:
    """An RPC by its path, `/package.Service/Method`."""
    name = path.removeprefix("/").replace("/", ".")
    return descriptor_pool.Default().FindMethodByName(name)


def policy_of(path: str) -> Policy:
    """The policy of an RPC by its path."""
    method = method_of(path)
    options = method.GetOptions()
    limit, fixed = _limit(method)
    access = options.Extensions[options_pb2.access]
    return Policy(
        role=access.role,
        limit=limit,
        fixed=fixed,
        endless=fixed is None and not options.HasExtension(options_pb2.deadline),
        reads=options.idempotency_level == MethodOptions.NO_SIDE_EFFECTS,
        resource=access.resource,
        unshared=access.unshared,
        lasts=options.HasExtension(options_pb2.deadline) or _streams(method),
    )


def _limit(method: MethodDescriptor) -> tuple[Callable[[Any], float | None], float | None]:
    options = method.GetOptions()
    if not options.HasExtension(options_pb2.deadline):
        default = None if _streams(method) else _UNARY_SECONDS
        return lambda _: default, default
    deadline = options.Extensions[options_pb2.deadline]
    fixed = deadline.duration.ToTimedelta().total_seconds()
    if not deadline.added_field or method.client_streaming:
        return lambda _: fixed, fixed
    *outer, last = deadline.added_field.split(".")
    added_default = deadline.added_default.ToTimedelta().total_seconds()

    def with_added(request: Any) -> float:
        for name in outer:
            request = getattr(request, name)
        if not request.HasField(last):
            return fixed + added_default
        added: float = getattr(request, last).ToTimedelta().total_seconds()
        return fixed + added

    return with_added, None


def _streams(method: MethodDescriptor) -> bool:
    return bool(method.server_streaming or method.client_streaming)
