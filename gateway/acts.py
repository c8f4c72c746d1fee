"""What gateways do by themselves to workspaces, as the audit log is told of it.

An entry as of a call: a mark when it begins, which the registry keeps with what is written, and
how it ended when it did. A gateway that dies between leaves UNKNOWN, and the one that ends what it
was at leaves an entry of its own.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, Final

from cove.registry.v1.audit_pb2 import AuditEntry
from cove.registry.v1.registry_pb2 import Environment
from gateway.names import workspace_name
from gateway.operations import Result
from gateway.records import State
from gateway.trail import Trail
from servicekit import calls
from servicekit.status import code_and_reason

_PRINCIPAL: Final = "gateway"
_SERVICE: Final = "Reconciler"
_PREFIX: Final = "ERROR_REASON_"


class Acts:
    """`tenant` is told where nobody knows whose it was."""

    def __init__(self, trail: Trail, tenant: str) -> None:
        self._trail = trail
        self._tenant = tenant

    def told(
        self, action: str, work: Callable[[Environment], Coroutine[Any, Any, Result]]
    ) -> Callable[[Environment], Coroutine[Any, Any, Result]]:
        """`work` on a claimed record, with an entry."""

        async def run(claimed: Environment) -> Result:
            entry = self._entry(action, claimed.tenant, claimed.uid)
            entry.resource = workspace_name(claimed.name)
            self._trail.began(entry)
            began = time.monotonic()
            code, reason = "OK", ""
            try:
                with calls.detached(entry=entry.SerializeToString()):
                    result = await work(claimed)
                if result and result.state == State.STATE_FAILED:
                    reason = result.failure.reason.removeprefix(_PREFIX)
                return result
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except Exception as error:
                code, reason = code_and_reason(error)
                raise
            finally:
                self._trail.ended(_ended(entry, code, reason, time.monotonic() - began))

        return run

    def removed(self, uid: str, tenant: str, seconds: float) -> None:
        """What no record points at was removed."""
        entry = self._entry("RemoveOrphan", tenant, uid)
        self._trail.ended(_ended(entry, "OK", "", seconds))

    def _entry(self, action: str, tenant: str, uid: str) -> AuditEntry:
        entry = AuditEntry(
            id=str(uuid.uuid4()),
            tenant=tenant or self._tenant,
            principal=_PRINCIPAL,
            action=f"{_SERVICE}.{action}",
            uid=uid,
            code="UNKNOWN",
            correlation_id=calls.current().correlation_id,
            count=1,
        )
        entry.time.FromNanoseconds(time.time_ns())
        return entry


def _ended(begun: AuditEntry, code: str, reason: str, seconds: float) -> AuditEntry:
    entry = AuditEntry()
    entry.CopyFrom(begun)
    entry.code, entry.reason = code, reason
    entry.duration.FromNanoseconds(round(seconds * 1e9))
    entry.time.FromNanoseconds(time.time_ns())
    return entry
