"""When workspaces were last used: noted in their records at intervals, not with each call.

The first call after an interval of quiet is noted before it is carried out, so that nobody takes
its workspace for idle meanwhile; what follows, and calls that last, are noted by a task. A call
lasts until its handler ends: so open streams, uploads and waits count for all of their time.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

import grpc

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.registry.v1.registry_pb2 import Environment
from gateway.batches import MADE, Update, write_all
from gateway.clock import Clock
from gateway.records import Records
from servicekit.errors import ServiceError

_log = logging.getLogger(__name__)

NOTED: Final = "last_active_time"
_SHARE: Final = 10
"""What is idle after a time may be noted as rarely as after this part of it."""
_OVER: Final = (MADE, ErrorReason.ERROR_REASON_ENVIRONMENT_NOT_FOUND)
"""After which nothing is left to be noted."""


class _Use:
    """Of one workspace, that is or was just used here."""

    def __init__(self, environment: Environment, interval: timedelta) -> None:
        self.name = environment.name
        self.tenant = environment.tenant
        self.interval = interval
        self.calls = 0
        self.used = self.noted = last_active(environment)


class Activity:
    """`interval` is how often at most a workspace is noted that is idle after the shortest time."""

    def __init__(self, records: Records, clock: Clock, interval: timedelta) -> None:
        self.interval = interval
        self._records = records
        self._clock = clock
        self._uses: dict[str, _Use] = {}

    @property
    def shortest(self) -> timedelta:
        """The shortest time after which a workspace may be taken for idle."""
        return self.interval * 2

    async def begin(self, environment: Environment) -> Environment:
        """The call of this task uses it, until the task ends. The record, as it is then."""
        interval = self._interval_of(environment)
        use = self._uses.setdefault(environment.uid, _Use(environment, interval))
        use.interval = interval
        use.used = now = self._clock.now()
        use.calls += 1
        task = asyncio.current_task()
        assert task
        task.add_done_callback(lambda _: self._end(use))
        if max(use.noted, last_active(environment)) + interval > now:
            return environment
        try:
            return await self._note(environment.name, use)
        except (ServiceError, grpc.aio.AioRpcError) as error:
            # The call will be told itself, if the record is gone or the registry stays away.
            _log.info("cannot note a use: %s", error)
            return environment

    async def run(self) -> None:
        """Note for ever what is used and not noted."""
        while True:
            await asyncio.sleep(self.interval.total_seconds() / 2)
            await self._look()

    async def _look(self) -> None:
        """Note all that are due, together."""
        now = self._clock.now()
        due: list[_Use] = []
        for use in self._uses.values():
            if use.calls:
                use.used = now
            if use.used > use.noted and now >= use.noted + use.interval:
                due.append(use)
        used = [use.used for use in due]
        updates = [Update(use.tenant, _seen(use.name, use.used), (NOTED,)) for use in due]
        whys = {id(update): why for update, why in await write_all(self._records, updates)}
        for use, at, update in zip(due, used, updates, strict=True):
            if whys[id(update)] in _OVER:
                use.noted = max(use.noted, at)
        for uid, use in list(self._uses.items()):
            if not use.calls and use.used <= use.noted:
                del self._uses[uid]

    async def note(self, environment: Environment, at: datetime) -> Environment:
        """It was active then, as was found out otherwise."""
        seen = _seen(environment.name, at)
        token = environment.fencing_token
        return await self._records.update(seen, (NOTED,), fencing_token=token)

    async def _note(self, name: str, use: _Use) -> Environment:
        at = use.used
        noted = await self._records.update(_seen(name, at), (NOTED,))
        use.noted = max(use.noted, at)
        return noted

    def _end(self, use: _Use) -> None:
        use.calls -= 1
        use.used = self._clock.now()

    def _interval_of(self, environment: Environment) -> timedelta:
        spec = environment.spec
        if not spec.HasField("idle_timeout"):
            return self.interval * _SHARE
        return max(self.interval, spec.idle_timeout.ToTimedelta() / _SHARE)


@asynccontextmanager
async def noting(activity: Activity) -> AsyncIterator[None]:
    """While the block runs."""
    task = asyncio.create_task(activity.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _seen(name: str, at: datetime) -> Environment:
    """What to write into the record of one that was used then."""
    seen = Environment(name=name)
    seen.last_active_time.FromDatetime(at)
    return seen


def last_active(environment: Environment) -> datetime:
    """When it was last used, as far as its record says."""
    field = NOTED if environment.HasField(NOTED) else "create_time"
    found: datetime = getattr(environment, field).ToDatetime(tzinfo=UTC)
    return found
