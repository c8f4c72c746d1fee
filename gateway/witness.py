"""What the audit log is told of a call, found in the descriptors: no RPC is forgotten.

Of the contents nothing: a resource name, a uid and ids, what the caller is, and how it ended.
"""

import time
import uuid
from collections.abc import Callable
from typing import Any, Final

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from cove.options.v1 import options_pb2
from cove.registry.v1.audit_pb2 import AuditEntry
from gateway import names
from gateway.trail import Trail
from servicekit.calls import Call
from servicekit.witness import NOBODY, Witness

_REFUSALS: Final = ("UNAUTHENTICATED", "PERMISSION_DENIED")
_OURS: Final = "/cove.gateway."
_CHILDREN: Final = {
    "workspace_id": names.WORKSPACES,
    "execution_id": names.EXECUTIONS,
    "snapshot_id": names.SNAPSHOTS,
    "token_id": names.TOKENS,
}
_NAMED: Final = (names.WORKSPACES, names.TOKENS)
_LONGEST: Final = 256
_LONGEST_ID: Final = 128


class Witnesses:
    """Makes who looks on at the calls of one gateway. What is refused to somebody who is not known
    is told to `tenant`."""

    def __init__(self, trail: Trail, tenant: str) -> None:
        self._trail = trail
        self._tenant = tenant

    def __call__(self, path: str) -> Callable[[], Witness]:
        if not path.startswith(_OURS):
            return lambda: NOBODY
        rpc = _Rpc(path)
        return lambda: _Witness(self._trail, rpc, self._tenant)

    def stranger(self, path: str, call: Call) -> None:
        """Somebody was refused before the call was made at all."""
        self(path)().ended(call, _REFUSALS[0], _REFUSALS[0], 0.0)


class _Rpc:
    """One RPC, as far as the log cares."""

    def __init__(self, path: str) -> None:
        name = path.removeprefix("/").replace("/", ".")
        method: MethodDescriptor = descriptor_pool.Default().FindMethodByName(name)
        options = method.GetOptions()
        self.action = f"{method.containing_service.name}.{method.name}"
        self.mutates = options.idempotency_level != MethodOptions.NO_SIDE_EFFECTS
        self.resource = options.Extensions[options_pb2.access].resource
        fields = method.input_type.fields_by_name
        self.child = next(
            (each for each in _CHILDREN if each in fields and not self._fork(each)), ""
        )
        self.answers = [each for each in method.output_type.fields if _is_message(each)]

    def _fork(self, field: str) -> bool:
        """Whether the id is not of a child of the resource: the new workspace of a fork."""
        return bool(self.resource) and field == "workspace_id"


def _is_message(field: FieldDescriptor) -> bool:
    return (
        field.message_type is not None
        and not field.is_repeated
        and "name" in field.message_type.fields_by_name
    )


class _Witness:
    def __init__(self, trail: Trail, rpc: _Rpc, tenant: str) -> None:
        self._trail = trail
        self._rpc = rpc
        self._tenant = tenant
        self._entry: AuditEntry | None = None
        self._asked = False
        self._answered = False
        self._resource = ""
        self._request_id = ""
        self._uid = ""

    def admitted(self, call: Call, request: Any) -> None:
        if not self._rpc.mutates:
            return
        if request is not None:
            self.asked(request)
        entry = self._made(call)
        self._trail.began(entry)
        self._entry = entry
        call.entry = entry.SerializeToString()

    def asked(self, request: Any) -> None:
        if self._asked:
            return
        self._asked = True
        self._request_id = getattr(request, "request_id", "")
        named = request
        for field in self._rpc.resource.split(".") if self._rpc.resource else ():
            named = getattr(named, field)
        self._resource = named if isinstance(named, str) else ""
        if self._rpc.child and (given := getattr(request, self._rpc.child)):
            self._resource += _CHILDREN[self._rpc.child] + given

    def answered(self, response: Any) -> None:
        if self._answered or not self._rpc.mutates:
            return
        self._answered = True
        for field in self._rpc.answers:
            if response.HasField(field.name):
                found = getattr(response, field.name)
                if found.name.startswith(_NAMED):
                    self._resource = found.name
                    self._uid = getattr(found, "uid", "")
                    return

    def ended(self, call: Call, code: str, reason: str, seconds: float) -> None:
        if self._entry:
            entry = self._made(call)
            entry.id = self._entry.id
            entry.code, entry.reason = code, reason
            entry.duration.FromNanoseconds(round(seconds * 1e9))
            self._trail.ended(entry)
        elif code in _REFUSALS:
            entry = self._made(call)
            entry.code, entry.reason = code, reason
            self._trail.refused(entry)

    def _made(self, call: Call) -> AuditEntry:
        entry = AuditEntry(
            id=str(uuid.uuid4()),
            tenant=(call.identity.tenant or self._tenant)[:_LONGEST_ID],
            principal=call.identity.principal[:_LONGEST],
            action=self._rpc.action,
            resource=self._resource[:_LONGEST],
            uid=self._uid or call.uid,
            code="UNKNOWN",
            correlation_id=call.correlation_id,
            request_id=self._request_id,
            source=call.source[:_LONGEST],
            count=1,
        )
        entry.time.FromNanoseconds(time.time_ns())
        return entry
