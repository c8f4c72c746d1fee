"""Deletes a workspace, and brings one back whose unsaved work is still kept."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Final

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.gateway.v1 import gateway_pb2 as pb
from cove.registry.v1.registry_pb2 import Environment
from gateway import names
from gateway.clock import Clock
from gateway.errors import LeaseLost, WorkspaceNotFound, WorkspaceNotReady
from gateway.operations import Operations, Result
from gateway.records import Cause, Operation, Records, State
from gateway.replicas import Replicas
from gateway.saga import PROVISIONED, Saga
from gateway.teardown import Teardown
from servicekit import calls
from servicekit.errors import ServiceError
from servicekit.status import reason

_LOOK_SECONDS: Final = 0.2
_RESUME: Final = "Resume the workspace, then retry."
_ONLY_DELETED: Final = "Only a deleted workspace can be brought back."


class Deletions:
    def __init__(
        self,
        records: Records,
        operations: Operations,
        teardown: Teardown,
        replicas: Replicas,
        undelete_window: timedelta,
        clock: Clock,
    ) -> None:
        self._records = records
        self._operations = operations
        self._teardown = teardown
        self._replicas = replicas
        self._undelete_window = undelete_window
        self._clock = clock

    async def delete(self, request: pb.DeleteWorkspaceRequest) -> Result:
        """None: nothing is left. Else the record in STATE_DELETED, whose work is kept."""
        try:
            claimed, task = await self._operations.claim(
                request.name,
                Operation.OPERATION_DELETING,
                partial(self._finish_or_release, force=request.force),
                etag=request.etag,
                request_id=request.request_id,
                cause=Cause.CAUSE_REQUESTED,
                preempt=True,
            )
        except WorkspaceNotFound:
            if request.allow_missing:
                return None
            raise
        calls.about(claimed.uid, claimed.node)
        if task is not None:
            return await self._ended(claimed, task)
        return await self._replayed(request, claimed)

    async def finish(self, claimed: Environment, *, force: bool = False) -> Result:
        """Take a claimed record, in any state, to its end."""
        if claimed.state == State.STATE_DELETED and not force:
            return await self._records.release(claimed)
        # A workspace that was never ready holds no work: a checkout that was cut off
        # only looks like it.
        force = force or claimed.state == State.STATE_PENDING
        if claimed.state != State.STATE_DELETING:
            await self._records.move(claimed, State.STATE_DELETING)
        await self._teardown.sandbox(claimed.uid)
        await self._teardown.executions(claimed.uid)
        try:
            await self._teardown.worktree(claimed.uid, keep_unsaved=not force)
        except grpc.aio.AioRpcError as error:
            if reason(error) != ErrorReason.ERROR_REASON_UNSAVED_WORK:
                raise
            purge_time = Timestamp()
            purge_time.FromDatetime(self._clock.latest() + self._undelete_window)
            return await self._records.move(
                claimed, State.STATE_DELETED, purge_time=purge_time, release=True
            )
        await self._replicas.release(claimed)
        await self._records.deregister(claimed)
        return None

    async def _ended(self, claimed: Environment, task: "asyncio.Task[Result]") -> Result:
        """What comes of a delete, also when another gateway takes it over."""
        try:
            return await asyncio.shield(task)
        except LeaseLost:
            pass
        while True:
            current = await self._records.find(names.workspace_name(claimed.name))
            if current is None or current.uid != claimed.uid:
                return None
            if current.state == State.STATE_DELETED:
                return current
            await asyncio.sleep(_LOOK_SECONDS)

    async def _finish_or_release(self, claimed: Environment, *, force: bool) -> Result:
        """So that the caller can retry at once what failed."""
        try:
            return await self.finish(claimed, force=force)
        except LeaseLost:
            raise
        except Exception:
            await give_back(self._records, claimed)
            raise

    async def _replayed(self, request: pb.DeleteWorkspaceRequest, first: Environment) -> Result:
        """The request came before, and was given `first` to delete."""
        if running := self._operations.running(first.uid):
            return await self._ended(first, running)
        current = await self._records.find(request.name)
        if current is None or current.uid != first.uid:
            return None
        if current.state == State.STATE_DELETED and not request.force:
            return current
        claimed, task = await self._operations.claim(
            request.name,
            Operation.OPERATION_DELETING,
            partial(self._finish_or_release, force=request.force),
            etag=current.etag,
            cause=Cause.CAUSE_REQUESTED,
            preempt=True,
        )
        assert task
        return await self._ended(claimed, task)


class Undeletions:
    def __init__(self, records: Records, operations: Operations, saga: Saga) -> None:
        self._records = records
        self._operations = operations
        self._saga = saga

    async def undelete(self, request: pb.UndeleteWorkspaceRequest) -> Environment:
        """The record, READY again."""
        current = await self._records.get(request.name)
        settled = current.state in (State.STATE_READY, State.STATE_DELETED)
        if not settled or (current.state == State.STATE_READY and not request.request_id):
            raise not_ready(current, _ONLY_DELETED)
        claimed, task = await self._operations.claim(
            request.name,
            Operation.OPERATION_RESUMING,
            self._restore,
            request_id=request.request_id,
        )
        if task is None:
            return await self._replayed(request, claimed)
        return await _restored(task)

    async def _restore(self, claimed: Environment) -> Environment:
        try:
            if claimed.state != State.STATE_DELETED:
                raise not_ready(claimed, _ONLY_DELETED)
            await self._saga.provision(claimed, "")
            await self._records.update(
                claimed,
                PROVISIONED,
                fencing_token=claimed.fencing_token,
            )
            return await self._records.move(claimed, State.STATE_READY, release=True)
        except LeaseLost:
            raise
        except Exception:
            await give_back(self._records, claimed)
            raise

    async def _replayed(
        self, request: pb.UndeleteWorkspaceRequest, first: Environment
    ) -> Environment:
        """The request came before, and was given `first` to bring back."""
        if running := self._operations.running(first.uid):
            await asyncio.shield(running)
        current = await self._records.get(request.name)
        if current.uid != first.uid:
            raise WorkspaceNotFound(request.name)
        if current.state != State.STATE_DELETED:
            return current
        _, task = await self._operations.claim(
            request.name, Operation.OPERATION_RESUMING, self._restore, etag=current.etag
        )
        assert task
        return await _restored(task)


async def _restored(task: "asyncio.Task[Result]") -> Environment:
    made = await asyncio.shield(task)
    assert made
    return made


def not_ready(environment: Environment, remedy: str = "") -> WorkspaceNotReady:
    state = State.Name(environment.state).removeprefix("STATE_")
    if environment.state == State.STATE_SUSPENDED:
        remedy = remedy or _RESUME
    return WorkspaceNotReady(names.workspace_name(environment.name), state, remedy)


async def give_back(records: Records, claimed: Environment) -> None:
    with suppress(ServiceError, grpc.aio.AioRpcError):  # Else the lease ends by itself.
        await records.release(claimed)
