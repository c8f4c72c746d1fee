"""Small writes of many records, gathered: one call and one commit for each tenant, not for each.

Each is made or refused by itself, under the etag in it, as it would be alone.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import grpc

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.options.v1.options_pb2 import Role
from cove.registry.v1.registry_pb2 import Environment
from gateway.records import Records
from servicekit import calls
from servicekit.errors import ServiceError
from servicekit.identity import Identity
from servicekit.status import reason

_log = logging.getLogger(__name__)

_PRINCIPAL: Final = "gateway"
MADE: Final = ErrorReason.ERROR_REASON_UNSPECIFIED
"""Of an update that was made."""
_UNKNOWN: Final = ErrorReason.ERROR_REASON_INTERNAL
"""Of one whose call failed without a reason."""


@dataclass(frozen=True, slots=True)
class Update:
    """To write these fields of `environment`, if it has its etag; without one in any case."""

    tenant: str
    environment: Environment
    fields: tuple[str, ...]


async def write_all(
    records: Records, updates: Iterable[Update]
) -> Sequence[tuple[Update, ErrorReason.ValueType]]:
    """What became of each: `MADE`, or why not. Raises nothing: one tenant waits for no other."""
    tenants: dict[str, list[Update]] = {}
    for update in updates:
        tenants.setdefault(update.tenant, []).append(update)
    results: list[tuple[Update, ErrorReason.ValueType]] = []
    for tenant, some in tenants.items():
        pairs = [(each.environment, each.fields) for each in some]
        try:
            with calls.detached(identity=Identity(_PRINCIPAL, tenant, Role.ROLE_SERVICE)):
                reasons = await records.update_all(pairs)
        except (ServiceError, grpc.aio.AioRpcError) as error:
            _log.info("cannot write records now: %s", error)
            reasons = [reason(error) or _UNKNOWN] * len(some)
        results += zip(some, reasons, strict=True)
    return results
