"""What is due in the life of workspaces: to expire, to be suspended as idle, to be finished.

Every gateway looks at every record; the registry's lease gives each thing to one of them.
"""

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import grpc

from cove.provider.v1 import provider_pb2
from cove.registry.v1.registry_pb2 import Environment
from gateway.activity import last_active
from gateway.clock import Clock
from gateway.delete import Deletions
from gateway.operations import Result
from gateway.provisioned import provisioned
from gateway.records import Cause, Operation, Records, State
from gateway.suspend import Suspensions
from gateway.tools import Tools
from servicekit.errors import ServiceError

_log = logging.getLogger(__name__)

TTL: Final = "spec.ttl"
_AHEAD: Final = timedelta(minutes=1)
"""By how much a date may lie further ahead than it can, if nobody set a clock."""
_EXPIRING: Final = (State.STATE_READY, State.STATE_SUSPENDED, State.STATE_FAILED)


@dataclass(frozen=True, slots=True)
class Due:
    """What to claim a record for, why, and what to do then."""

    operation: Operation.ValueType
    work: Callable[[Environment], Coroutine[Any, Any, Result]]
    cause: Cause.ValueType = Cause.CAUSE_UNSPECIFIED


class Life:
    def __init__(
        self,
        tools: Tools,
        records: Records,
        suspensions: Suspensions,
        deletions: Deletions,
        clock: Clock,
    ) -> None:
        self._nodes = tools.nodes
        self._provider = tools.provider
        self._records = records
        self._suspensions = suspensions
        self._deletions = deletions
        self._clock = clock
        self._wanted = True
        """Whether a record was seen of a workspace that may become idle."""
        self._quiet: dict[str, datetime | None] = {}
        """By uid of what is provisioned: None while a sandbox of it is there, which can be asked;
        else the latest time at which something can have run in it."""

    async def look(self) -> None:
        """See which sandboxes are there. To be done before the records are looked at."""
        if not self._wanted:
            self._quiet.clear()
            return
        self._wanted = False
        found: dict[str, datetime | None] = {}
        for node in self._nodes.answering():
            try:
                with self._nodes.at(node):
                    found |= await self._sandboxes()
            except (ServiceError, grpc.aio.AioRpcError) as error:
                _log.warning("cannot look for idle workspaces now: %s", error)
        self._quiet = found

    def due(self, environment: Environment) -> Due | None:
        """What to do about a record at which nobody is; None: nothing, or not yet."""
        now = self._clock.now()
        if environment.spec.HasField("idle_timeout"):
            self._wanted = True
        if environment.state in _EXPIRING and environment.HasField("expire_time"):
            left = _time(environment, "expire_time") - now
            if left <= timedelta(0):
                return Due(
                    Operation.OPERATION_DELETING, self._deletions.finish, Cause.CAUSE_EXPIRED
                )
            if left > environment.spec.ttl.ToTimedelta() + self._ahead(now):
                return Due(Operation.OPERATION_UPDATING, self._redate)
        if environment.state == State.STATE_DELETED:
            if _time(environment, "delete_time") > now + self._ahead(now):
                return Due(Operation.OPERATION_UPDATING, self._redate)
        elif environment.state == State.STATE_READY and self._idle(environment, now):
            return Due(
                Operation.OPERATION_SUSPENDING, self._suspensions.finish_idle, Cause.CAUSE_IDLE
            )
        return None

    def left(self, environment: Environment) -> Due | None:
        """How to end what somebody who is gone began; None: that is not about its life."""
        if environment.state not in (State.STATE_READY, State.STATE_SUSPENDED):
            return None
        operation = environment.operation
        if operation == Operation.OPERATION_RESUMING:
            return Due(operation, self._suspensions.finish_resuming)
        if operation != Operation.OPERATION_SUSPENDING:
            return None
        if environment.cause == Cause.CAUSE_IDLE:
            return Due(operation, self._suspensions.finish_idle)
        return Due(operation, self._suspensions.finish_suspending)

    def _idle(self, environment: Environment, now: datetime) -> bool:
        """Whether it may be idle: whoever suspends it asks the sandbox, if there is one."""
        if not environment.spec.HasField("idle_timeout") or environment.uid not in self._quiet:
            return False
        # Noted by a clock that was ahead: then it is found out anew.
        active = last_active(environment)
        if active > now + self._ahead(now):
            return True
        quiet = self._quiet[environment.uid]
        since = active if quiet is None else max(active, quiet)
        return since + environment.spec.idle_timeout.ToTimedelta() <= now

    def _ahead(self, now: datetime) -> timedelta:
        """A clock that jumped, and is not believed yet, may have dated it."""
        return _AHEAD + (self._clock.latest() - now)

    async def _redate(self, claimed: Environment) -> Environment:
        """Bring a date to where it is at most, which a clock that was ahead has set."""
        if claimed.state != State.STATE_DELETED:
            written = await self._records.update(
                claimed, (TTL,), fencing_token=claimed.fencing_token
            )
            return await self._records.release(written)
        window = _time(claimed, "purge_time") - _time(claimed, "delete_time")
        claimed.purge_time.FromDatetime(self._clock.latest() + window)
        return await self._records.move(
            claimed, State.STATE_DELETED, purge_time=claimed.purge_time, release=True
        )

    async def _sandboxes(self) -> dict[str, datetime | None]:
        provider = self._provider
        capable = await provider.unary(
            provider.rpc.GetCapabilities, provider_pb2.GetCapabilitiesRequest()
        )
        # By itself one ends only when nothing has run in it for this long.
        latest = self._clock.now() - capable.capabilities.idle_timeout.ToTimedelta()
        found: dict[str, datetime | None] = {}
        # What a driver has that does not answer now counts as not idle, and is looked at later.
        async for page in provisioned(provider):
            for each in page.observations:
                active = each.state == provider_pb2.Observation.STATE_ACTIVE
                found[each.uid] = None if active else self._quiet.get(each.uid) or latest
        return found


def _time(environment: Environment, field: str) -> datetime:
    found: datetime = getattr(environment, field).ToDatetime(tzinfo=UTC)
    return found
