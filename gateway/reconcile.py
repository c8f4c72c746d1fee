"""Ends what a gateway that is gone began, and removes what no record points at.

Every gateway does this. Several at once do no harm: the registry gives each
operation to one of them, and to remove an orphan twice changes nothing.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, TypeAlias

import grpc

from cove.options.v1.options_pb2 import Role
from cove.registry.v1.registry_pb2 import Environment
from gateway import names
from gateway.acts import Acts
from gateway.clock import Clock
from gateway.deadlines import Deadlines, timed_out
from gateway.delete import Deletions
from gateway.errors import LeaseLost
from gateway.life import Due, Life
from gateway.losses import Losses
from gateway.nodes import Nodes
from gateway.operations import Operations, Result
from gateway.orphans import ITSELF, Found, Key, Orphans
from gateway.records import Cause, Operation, Records, State
from gateway.replicas import Replicas
from gateway.saga import Saga
from gateway.strays import Strays
from gateway.updates import Updates
from servicekit import calls
from servicekit.errors import ServiceError
from servicekit.identity import Identity

_log = logging.getLogger(__name__)

_SOON_SECONDS: Final = 5.0

Work: TypeAlias = Callable[[Environment], Coroutine[Any, Any, Result]]


@dataclass(frozen=True, slots=True)
class Takeover:
    """What to claim a record for, and what to do then."""

    operation: Operation.ValueType
    work: Work
    cause: Cause.ValueType = Cause.CAUSE_UNSPECIFIED
    action: str = ""
    """As the audit log names it; empty: nothing is lost by it, so the record tells enough."""


class Reconciler:
    def __init__(
        self,
        *,
        records: Records,
        operations: Operations,
        saga: Saga,
        deletions: Deletions,
        orphans: Orphans,
        losses: Losses,
        updates: Updates,
        deadlines: Deadlines,
        life: Life,
        clock: Clock,
        nodes: Nodes,
        strays: Strays,
        acts: Acts,
        replicas: Replicas,
    ) -> None:
        self._nodes = nodes
        self._strays = strays
        self._replicas = replicas
        self._records = records
        self._operations = operations
        self._saga = saga
        self._deletions = deletions
        self._orphans = orphans
        self._updates = updates
        self._losses = losses
        self._deadlines = deadlines
        self._life = life
        self._clock = clock
        self._acts = acts
        self.looked = 0.0
        """When all records were last looked through, in seconds since 1970; 0: not yet."""

    async def run(self, interval: timedelta) -> None:
        """For ever. What is taken over does not hold up the next round; one that could
        not look, say as the suite is just starting, is repeated soon."""
        while True:
            pause = min(interval.total_seconds(), _SOON_SECONDS)
            try:
                await self.look()
                self.looked = time.time()
                pause = interval.total_seconds()
            except (ServiceError, grpc.aio.AioRpcError) as error:
                _log.warning("cannot reconcile now: %s", error)
            except Exception:
                _log.exception("cannot reconcile")
            await asyncio.sleep(pause)

    async def follow_nodes(self) -> None:
        """For ever: see at once to workspaces whose node has gone, or come back."""
        while True:
            await self._nodes.changed.wait()
            self._nodes.changed.clear()
            try:
                with calls.detached(identity=ITSELF):
                    async for environment in self._records.everything():
                        if takeover := _takeover(self._strays.due(environment)):
                            await self._take_over(environment, takeover)
            except (ServiceError, grpc.aio.AioRpcError) as error:
                _log.warning("cannot see to what is on the nodes now: %s", error)
                self._nodes.changed.set()
                await asyncio.sleep(_SOON_SECONDS)

    async def look(self) -> None:
        """Begin to end what was abandoned, see what is lost, and remove orphans."""
        with calls.detached(identity=ITSELF):
            # In this order: what is found now and has a record then is no orphan.
            looked = await self._orphans.candidates()
            await self._life.look()
            known: set[Key] = set()
            copies: set[Key] = set()
            places = Counter(uid for _, uid in looked.found)
            moved: dict[str, Environment] = {}
            async for environment in self._records.everything():
                key = self._nodes.key(environment), environment.uid
                known.add(key)
                if environment.copy_node:
                    copies.add((environment.copy_node, environment.uid))
                if environment.spec.rebuild and places[environment.uid] > 1:
                    moved[environment.uid] = environment
                takeover = self._due(environment, self._clock.now())
                if takeover is None and looked.tells_all(key):
                    takeover = await self._compared(environment, looked.found.get(key))
                if takeover:
                    await self._take_over(environment, takeover)
                    continue
                with calls.detached(identity=_owner(environment)):
                    self._replicas.look(environment, looked.found, looked.nodes)
            await self._losses.advanced()
            for each in (self._losses, self._replicas):
                each.forget({uid for _, uid in known})
            await self._orphans.remove(looked.found, known, copies, moved)

    async def _compared(self, environment: Environment, found: Found | None) -> Takeover | None:
        """What to do about a record at rest, given what the tools have of it."""
        if self._losses.due(environment, found):
            return Takeover(
                Operation.OPERATION_REPAIRING, self._losses.repair, action="RepairWorkspace"
            )
        await self._losses.advance(environment, found)
        return None

    async def _take_over(self, environment: Environment, takeover: Takeover) -> None:
        if self._operations.running(environment.uid):
            return
        work = takeover.work
        if takeover.action:
            work = self._acts.told(takeover.action, work)
        with calls.detached(identity=_owner(environment)):
            try:
                await self._operations.claim(
                    names.workspace_name(environment.name),
                    takeover.operation,
                    work,
                    etag=environment.etag,
                    cause=takeover.cause,
                )
            except (ServiceError, grpc.aio.AioRpcError) as error:
                _log.info("another was faster: %s", error, extra=_fields(environment.uid))
                return
            _log.info("taking over", extra=_fields(environment.uid))

    def _due(self, environment: Environment, now: datetime) -> Takeover | None:
        """What to do about a record; None: nothing, or not yet."""
        operation = environment.operation
        if operation != Operation.OPERATION_NONE and _at(environment, "lease_expire_time") > now:
            return None
        creating, deleting = Operation.OPERATION_CREATING, Operation.OPERATION_DELETING
        late = self._deadlines.over(environment, now)
        match environment.state:
            case State.STATE_PENDING:
                work: Work = partial(self._saga.make, patient=not late)
                return Takeover(creating, work, action="FinishCreate")
            case State.STATE_DELETING if operation == creating:
                work = self._ending(self._saga.undo, late=late)
                return Takeover(creating, work, action="UndoCreate")
            case State.STATE_DELETING:
                work = self._ending(self._deletions.finish, late=late)
                return Takeover(deleting, work, action="FinishDelete")
            case State.STATE_DELETED if _at(environment, "purge_time") <= now:
                work = partial(self._deletions.finish, force=True)
                return Takeover(deleting, work, action="PurgeWorkspace")
        if operation == deleting:
            return Takeover(deleting, self._deletions.finish, action="FinishDelete")
        if operation == Operation.OPERATION_UPDATING:
            work = self._ending(self._updates.finish_or_leave, late=late)
            return Takeover(operation, work, action="FinishUpdate")
        if operation != Operation.OPERATION_NONE:
            left = self._life.left(environment)
            if left is None:
                return Takeover(operation, self._records.release)
            return Takeover(operation, self._ending(left.work, late=late))
        return _takeover(self._strays.due(environment) or self._life.due(environment))

    def _ending(self, work: Work, *, late: bool) -> Work:
        """`work`; with `late` for the last time: where it fails, so does the workspace."""
        return partial(self._last, work) if late else work

    async def _last(self, work: Work, claimed: Environment) -> Result:
        try:
            return await work(claimed)
        except (ServiceError, grpc.aio.AioRpcError) as error:
            if isinstance(error, LeaseLost):
                raise
            why = timed_out(claimed, error)
            return await self._records.move(claimed, State.STATE_FAILED, failure=why, release=True)


@asynccontextmanager
async def reconciling(reconciler: Reconciler, interval: timedelta) -> AsyncIterator[None]:
    """At once, and then at every interval, while the block runs."""
    loops = (reconciler.run(interval), reconciler.follow_nodes())
    tasks = [asyncio.create_task(each) for each in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _takeover(due: Due | None) -> Takeover | None:
    if due is None:
        return None
    action = "ExpireWorkspace" if due.cause == Cause.CAUSE_EXPIRED else ""
    return Takeover(due.operation, due.work, due.cause, action)


def _owner(environment: Environment) -> Identity:
    """In whose name its operations are ended: what they proved before still counts."""
    return Identity(environment.creator, environment.tenant, Role.ROLE_SERVICE)


def _at(environment: Environment, field: str) -> datetime:
    time_: datetime = getattr(environment, field).ToDatetime(tzinfo=UTC)
    return time_


def _fields(uid: str) -> dict[str, dict[str, str]]:
    return {"fields": {"uid": uid}}
