"""Work on a workspace that outlives the call that asked for it, under a lease."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Final, Self, TypeAlias, TypeVar

import grpc

from cove.registry.v1.registry_pb2 import Environment
from gateway.deadlines import Deadlines
from gateway.errors import LeaseLost, WorkspaceNotFound
from gateway.names import workspace_name
from gateway.records import Cause, Operation, Records
from servicekit import calls
from servicekit.errors import DeadlineExceeded, ServiceError

_log = logging.getLogger(__name__)

T = TypeVar("T")

_OVER: Final = timedelta(microseconds=1)
_DROP_SECONDS: Final = 1.0

Result: TypeAlias = Environment | None
"""How an operation leaves the record; None: it is gone."""


class Operations:
    """What this gateway is at, by uid."""

    def __init__(self, records: Records, lease: timedelta, deadlines: Deadlines) -> None:
        self.lease = lease
        self._deadlines = deadlines
        self._records = records
        self._name = f"gateway-{os.urandom(4).hex()}"
        self._count = 0
        self._running: dict[str, asyncio.Task[Result]] = {}
        self._given_up: dict[str, asyncio.Event] = {}
        self._beginning: set[asyncio.Task[Any]] = set()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, records: Records, lease: timedelta, deadlines: Deadlines
    ) -> AsyncIterator[Self]:
        """On leaving, what goes on is dropped, and its leases end: another gateway ends it."""
        operations = cls(records, lease, deadlines)
        try:
            yield operations
        finally:
            await _end(*operations._beginning)
            await _end(*operations._running.values())

    def holder(self) -> str:
        """A new name of a holder: no other operation, here or elsewhere, has it."""
        self._count += 1
        return f"{self._name}-{self._count}"

    @property
    def going_on(self) -> int:
        """How many go on."""
        return len(self._running)

    def running(self, uid: str) -> asyncio.Task[Result] | None:
        return self._running.get(uid)

    async def unbroken(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` to its end even if the caller leaves: what is claimed must be begun."""
        task = asyncio.create_task(work)
        self._beginning.add(task)
        task.add_done_callback(self._begun)
        return await asyncio.shield(task)

    async def claim(
        self,
        workspace: str,
        operation: Operation.ValueType,
        work: Callable[[Environment], Coroutine[Any, Any, Result]],
        *,
        etag: str = "",
        request_id: str = "",
        cause: Cause.ValueType = Cause.CAUSE_UNSPECIFIED,
        preempt: bool = False,
    ) -> tuple[Environment, asyncio.Task[Result] | None]:
        """Claim a record and start `work` on it, even if the caller leaves.

        With `preempt` it is taken from whoever does something else to it, here or elsewhere.

        No task: the request came before, and was given the record that it names then.
        """
        return await self.unbroken(
            self._claim(workspace, operation, work, etag, request_id, cause, preempt=preempt)
        )

    async def _claim(
        self,
        workspace: str,
        operation: Operation.ValueType,
        work: Callable[[Environment], Coroutine[Any, Any, Result]],
        etag: str,
        request_id: str,
        cause: Cause.ValueType,
        *,
        preempt: bool,
    ) -> tuple[Environment, asyncio.Task[Result] | None]:
        holder = self.holder()
        claimed = await self._records.claim(
            workspace,
            operation,
            holder=holder,
            lease=self.lease,
            etag=etag,
            request_id=request_id,
            cause=cause,
            preempt=preempt,
        )
        if claimed.operation_holder != holder:
            return claimed, None
        return claimed, self.start(claimed, work)

    def _begun(self, task: asyncio.Task[Any]) -> None:
        self._beginning.discard(task)
        if not task.cancelled():
            task.exception()  # Whoever asked may be gone: that is no error.

    def start(
        self,
        claimed: Environment,
        work: Callable[[Environment], Coroutine[Any, Any, Result]],
    ) -> asyncio.Task[Result]:
        """Do `work` on a record that was just claimed, and renew its lease meanwhile.

        The task raises what `work` raises, and `LeaseLost`, after which `work` does
        nothing more.
        """
        if preempted := self._given_up.get(claimed.uid):
            preempted.set()
        self._given_up[claimed.uid] = given_up = asyncio.Event()
        fence = calls.Fence(claimed.uid, claimed.fencing_token)
        with calls.detached(fence=fence, node=claimed.node):
            task = asyncio.create_task(self._leased(claimed, work(claimed), given_up))
        self._running[claimed.uid] = task
        task.add_done_callback(lambda done: self._ended(claimed.uid, done))
        return task

    def _ended(self, uid: str, task: asyncio.Task[Result]) -> None:
        if self._running.get(uid) is task:
            del self._running[uid]
            del self._given_up[uid]
        if not task.cancelled() and (error := task.exception()):
            if isinstance(error, ServiceError | grpc.aio.AioRpcError):
                _log.info("an operation failed: %s", error, extra={"fields": {"uid": uid}})
            else:
                _log.error("an operation failed", exc_info=error)

    async def _leased(
        self, claimed: Environment, work: Coroutine[Any, Any, Result], given_up: asyncio.Event
    ) -> Result:
        try:
            return await self._while_held(claimed, work, given_up)
        except asyncio.CancelledError:  # This gateway stops.
            with suppress(ServiceError, grpc.aio.AioRpcError):
                await self._records.renew(claimed, _OVER, timeout=_DROP_SECONDS)
            raise

    async def _while_held(
        self, claimed: Environment, work: Coroutine[Any, Any, Result], given_up: asyncio.Event
    ) -> Result:
        working = asyncio.create_task(work)
        renewing = asyncio.create_task(self._renew(claimed))
        preempted = asyncio.create_task(given_up.wait())
        limit = self._deadlines.limit(claimed.operation)
        tasks = (working, renewing, preempted)
        try:
            await asyncio.wait(
                tasks, timeout=limit.total_seconds(), return_when=asyncio.FIRST_COMPLETED
            )
            if working.done():
                return working.result()
            if renewing.done():
                renewing.result()
            if preempted.done():
                raise LeaseLost(
                    "another operation on the workspace has broken this one off",
                    name=workspace_name(claimed.name),
                )
            raise DeadlineExceeded(
                "it took longer than it may", seconds=f"{limit.total_seconds():.12g}"
            )
        finally:
            await _end(*tasks)

    async def _renew(self, claimed: Environment) -> None:
        """Until the lease is lost: to another holder, or as the registry stays away."""
        lease = self.lease.total_seconds()
        until = time.monotonic() + lease
        while True:
            await asyncio.sleep(lease / 3)
            asked = time.monotonic()
            try:
                await self._records.renew(claimed, self.lease, timeout=lease / 3)
                until = asked + lease
            except (LeaseLost, WorkspaceNotFound):
                raise LeaseLost("another gateway has it") from None
            except (ServiceError, grpc.aio.AioRpcError) as error:
                if time.monotonic() > until:
                    raise LeaseLost("the registry is away") from error


async def _end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
