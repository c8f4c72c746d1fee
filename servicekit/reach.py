"""What a caller may: by its role, and with a share by what its requests name."""

from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from buf.validate import validate_pb2
from cove.errors.v1.errors_pb2 import ErrorReason
from cove.options.v1.options_pb2 import Role
from servicekit.errors import PermissionDenied
from servicekit.identity import Identity
from servicekit.policy import Policy

WORKSPACES: Final = "workspaces/"
_PATTERN: Final = "^" + WORKSPACES
_UNSPECIFIED: Final = Role.ROLE_UNSPECIFIED


class ShareLimited(PermissionDenied):
    """It is not said whether what was named is there."""

    reason = ErrorReason.ERROR_REASON_SHARE_LIMITED

    def __init__(self, workspace: str) -> None:
        super().__init__("the token reaches one workspace only", workspace=WORKSPACES + workspace)


class Reach:
    """Who may call one RPC. A share reaches its workspace, by requests that name nothing else in
    any of their fields, at whatever depth."""

    def __init__(self, policy: Policy, request: Descriptor) -> None:
        self._role = policy.role
        self._closed = policy.unshared or not policy.resource
        self._paths = tuple(_naming(request, ()))

    def admit(self, identity: Identity) -> None:
        """Raises `PermissionDenied` for a role that is too low, and for a share of a workspace
        where the RPC is about more than that."""
        if self._role == _UNSPECIFIED or identity.role < self._role:
            role = Role.Name(self._role)
            raise PermissionDenied("the identity may not call this", role=role)
        if identity.workspace and self._closed:
            raise ShareLimited(identity.workspace)

    def check(self, identity: Identity, request: Any) -> None:
        """Raises `ShareLimited` for a request, or a part of one, that names another workspace."""
        if not (workspace := identity.workspace):
            return
        own = WORKSPACES + workspace
        for path in self._paths:
            for name in _values(request, path):
                if name and name != own and not name.startswith(f"{own}/"):
                    raise ShareLimited(workspace)


def _naming(message: Descriptor, seen: tuple[str, ...]) -> Iterator[tuple[FieldDescriptor, ...]]:
    """Paths of the fields whose rule says that they are names of workspaces, or within one."""
    for field in message.fields:
        if field.message_type is None:
            extensions: Any = field.GetOptions().Extensions
            rules = extensions[validate_pb2.field]
            texts = rules.repeated.items.string if field.is_repeated else rules.string
            if texts.pattern.startswith(_PATTERN):
                yield (field,)
        elif field.message_type.full_name not in seen:
            within = _naming(field.message_type, (*seen, message.full_name))
            yield from ((field, *path) for path in within)


def _values(message: Any, path: tuple[FieldDescriptor, ...]) -> Iterator[str]:
    field, *rest = path
    if not rest:
        value = getattr(message, field.name)
        yield from value if field.is_repeated else (value,)
    elif field.is_repeated:
        for each in getattr(message, field.name):
            yield from _values(each, tuple(rest))
    elif message.HasField(field.name):
        yield from _values(getattr(message, field.name), tuple(rest))
