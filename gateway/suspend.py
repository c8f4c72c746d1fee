"""Suspends workspaces and resumes them, under a lease; each step can be repeated.

First the provider ends the sandbox and lets none be started, then the record says so; resuming
is the other way round. So whoever comes between is refused by the provider, and looks again.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any, Final

import grpc

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.provider.v1 import provider_pb2
from cove.registry.v1.registry_pb2 import Environment
from gateway import names
from gateway.activity import Activity, last_active
from gateway.clock import Clock
from gateway.delete import give_back, not_ready
from gateway.errors import (
    LeaseLost,
    OperationInProgress,
    WorkspaceBusy,
    WorkspaceNotFound,
    WorkspaceSuspended,
)
from gateway.operations import Operations, Result
from gateway.records import Cause, Operation, Records, State, duration
from gateway.tools import Tools
from servicekit.status import reason

Work = Callable[[Environment], Coroutine[Any, Any, Result]]

_STOP_SECONDS: Final = 90.0
_PATIENCE_SECONDS: Final = 60.0
"""How long a call waits for an operation that decides whether it can be carried out."""
_LOOK_SECONDS: Final = 0.1
_NAMED: Final = 10
_PAGE: Final = 1000
_KEPT: Final = (State.STATE_READY, State.STATE_SUSPENDED)
_MEANWHILE: Final = (
    ErrorReason.ERROR_REASON_OPERATION_IN_PROGRESS,
    ErrorReason.ERROR_REASON_ETAG_MISMATCH,
)


class Suspensions:
    def __init__(
        self,
        tools: Tools,
        records: Records,
        operations: Operations,
        activity: Activity,
        clock: Clock,
    ) -> None:
        self._provider = tools.provider
        self._executor = tools.executor
        self._records = records
        self._operations = operations
        self._activity = activity
        self._clock = clock

    async def suspend(self, request: pb.SuspendWorkspaceRequest) -> Environment:
        """The record, SUSPENDED until it is resumed. Raises `WorkspaceBusy`."""
        current = await self._records.get(request.name)
        if current.state not in _KEPT:
            raise not_ready(current)
        return await self._claimed(
            request,
            Operation.OPERATION_SUSPENDING,
            partial(self.finish_suspending, force=request.force),
            cautious=self.finish_suspending,
            done=State.STATE_SUSPENDED,
            etag=request.etag,
            cause=Cause.CAUSE_REQUESTED,
        )

    async def resume(self, request: pb.ResumeWorkspaceRequest) -> Environment:
        """The record, READY."""
        current = await self._records.get(request.name)
        if current.state not in _KEPT:
            raise not_ready(current)
        if current.state == State.STATE_READY and current.operation == Operation.OPERATION_NONE:
            return current
        return await self._claimed(
            request,
            Operation.OPERATION_RESUMING,
            self.finish_resuming,
            cautious=self.finish_resuming,
            done=State.STATE_READY,
        )

    async def finish_suspending(self, claimed: Environment, *, force: bool = False) -> Environment:
        """End its sandbox, and say so. What cannot be done leaves it as it was."""
        try:
            if claimed.state not in _KEPT:
                raise not_ready(claimed)
            if not (await self._stop(claimed, force=force)).stopped:
                raise await self._busy(claimed)
            return await self._records.move(claimed, State.STATE_SUSPENDED, release=True)
        except LeaseLost:
            raise
        except Exception:
            await give_back(self._records, claimed)
            raise

    async def finish_idle(self, claimed: Environment) -> Environment:
        """As `finish_suspending`, if it is idle: else note since when it is not."""
        timeout = claimed.spec.idle_timeout.ToTimedelta()
        try:
            idle = claimed.state == State.STATE_READY and claimed.spec.HasField("idle_timeout")
            if not idle or last_active(claimed) + timeout > self._clock.now():
                return await self._records.release(claimed)
            answer = await self._stop(claimed, quiet=timeout)
            if answer.stopped:
                return await self._records.move(claimed, State.STATE_SUSPENDED, release=True)
            active = self._clock.now() - answer.quiet.ToTimedelta()
            return await self._records.release(await self._activity.note(claimed, active))
        except LeaseLost:
            raise
        except Exception:
            await give_back(self._records, claimed)
            raise

    async def finish_resuming(self, claimed: Environment) -> Environment:
        """Let its sandbox be started, and say so. What cannot be done leaves it as it was."""
        try:
            if claimed.state not in _KEPT:
                raise not_ready(claimed)
            if not await self._reopen(claimed):
                raise LeaseLost("a later operation has decided", name=claimed.name)
            return await self._records.move(claimed, State.STATE_READY, release=True)
        except LeaseLost:
            raise
        except Exception:
            await give_back(self._records, claimed)
            raise

    async def awake(self, environment: Environment) -> Environment:
        """The record, READY: one that was idle is resumed, for which this call waits.

        Raises `WorkspaceSuspended`, `WorkspaceNotReady`, and `OperationInProgress` when whoever
        suspends or resumes it does not end.
        """
        until = time.monotonic() + _PATIENCE_SECONDS
        current = environment
        while _moving(current) or current.state != State.STATE_READY:
            if current.state not in _KEPT:
                raise not_ready(current)
            if not _moving(current):
                if current.cause != Cause.CAUSE_IDLE:
                    raise WorkspaceSuspended(names.workspace_name(current.name))
                if resumed := await self._resumed(current):
                    return resumed
            if time.monotonic() > until:
                raise OperationInProgress(current)
            await asyncio.sleep(_LOOK_SECONDS)
            current = await self._again(environment)
        return current

    async def reopened(self, environment: Environment) -> None:
        """After the provider refused to start the sandbox of one that was READY.

        Raises as `awake`. One that is READY all the same was left so by who could not suspend it.
        """
        current = await self._again(environment)
        if current.state == State.STATE_READY and not _moving(current):
            await self._reopen(current)
        else:
            await self.awake(current)

    async def _resumed(self, current: Environment) -> Environment | None:
        """None: somebody else is at it."""
        try:
            _, task = await self._operations.claim(
                names.workspace_name(current.name),
                Operation.OPERATION_RESUMING,
                self.finish_resuming,
                etag=current.etag,
            )
            assert task
            return await asyncio.shield(task)
        except LeaseLost:
            return None
        except grpc.aio.AioRpcError as error:
            if reason(error) not in _MEANWHILE:
                raise
            return None

    async def _claimed(
        self,
        request: Any,
        operation: Operation.ValueType,
        work: Work,
        *,
        cautious: Work,
        done: State.ValueType,
        etag: str = "",
        cause: Cause.ValueType = Cause.CAUSE_UNSPECIFIED,
    ) -> Environment:
        claimed, task = await self._operations.claim(
            request.name, operation, work, etag=etag, request_id=request.request_id, cause=cause
        )
        if task is None:
            if running := self._operations.running(claimed.uid):
                await asyncio.wait((running,))
            current = await self._again(claimed)
            if current.state == done or current.state not in _KEPT:
                return current
            # Nobody else came between: then it is the same work. Else it must end nothing.
            same = current.fencing_token == claimed.fencing_token
            _, task = await self._operations.claim(
                request.name,
                operation,
                work if same else cautious,
                etag=current.etag,
                cause=cause,
            )
            assert task
        return await asyncio.shield(task) or await self._again(claimed)

    async def _again(self, environment: Environment) -> Environment:
        name = names.workspace_name(environment.name)
        current = await self._records.get(name)
        if current.uid != environment.uid:
            raise WorkspaceNotFound(name)
        return current

    async def _stop(
        self, claimed: Environment, *, force: bool = False, quiet: timedelta = timedelta(0)
    ) -> provider_pb2.StopEnvironmentResponse:
        request = provider_pb2.StopEnvironmentRequest(
            handle=claimed.handle,
            revision=claimed.fencing_token,
            force=force,
            quiet=duration(quiet),
        )
        rpc = self._provider.rpc.StopEnvironment
        answer = await self._provider.unary(rpc, request, timeout=_STOP_SECONDS)
        if answer.superseded:
            raise LeaseLost("a later operation has decided", name=claimed.name)
        return answer

    async def _reopen(self, environment: Environment) -> bool:
        request = provider_pb2.ReopenEnvironmentRequest(
            handle=environment.handle, revision=environment.fencing_token
        )
        rpc = self._provider.rpc.ReopenEnvironment
        return not (await self._provider.unary(rpc, request)).superseded

    async def _busy(self, environment: Environment) -> WorkspaceBusy:
        """What to say of one in which something runs."""
        found: list[str] = []
        request = executor_pb2.ListExecutionsRequest(
            parent=names.behind(environment), page_size=_PAGE
        )
        while len(found) < _NAMED:
            page = await self._executor.unary(self._executor.rpc.ListExecutions, request)
            found += [names.split_execution(one.name)[1] for one in page.executions if _alive(one)]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        return WorkspaceBusy(names.workspace_name(environment.name), found[:_NAMED])


def _moving(environment: Environment) -> bool:
    """Whether it is just being suspended or resumed."""
    return environment.operation in (
        Operation.OPERATION_SUSPENDING,
        Operation.OPERATION_RESUMING,
    )


def _alive(execution: executor_pb2.Execution) -> bool:
    running = execution.state == executor_pb2.Execution.STATE_RUNNING
    return running or execution.processes.total > 0
