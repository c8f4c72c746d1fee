"""Finds what tools have lost of a workspace, and makes it again, or notes that it is lost.

A record is acted on only when its part was missing at two looks, for the grace period
between them, and is missing still when it is asked for by its uid under the lease: a list
is no snapshot, and a disk may come back.
"""

import logging
import time
from collections.abc import Collection
from datetime import timedelta
from typing import Final

import grpc

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.git.v1 import git_pb2
from cove.registry.v1.registry_pb2 import Environment
from gateway.batches import MADE, Update, write_all
from gateway.deadlines import failure, said
from gateway.delete import give_back
from gateway.errors import LeaseLost
from gateway.handles import FIELDS as HANDLE
from gateway.handles import next_handle
from gateway.orphans import Found
from gateway.records import Operation, Records, State
from gateway.saga import PROVISIONED, Saga
from gateway.tools import Tools, transient
from servicekit.errors import ServiceError
from servicekit.status import reason

_log = logging.getLogger(__name__)

_SECONDS: Final = 30.0
_TOGETHER: Final = 500
_NOTHING: Final = Found("")


class Losses:
    """`grace` is how long something must have been missing to be lost."""

    def __init__(self, tools: Tools, records: Records, saga: Saga, grace: timedelta) -> None:
        self._git = tools.git
        self._records = records
        self._saga = saga
        self._grace = grace.total_seconds()
        self._missing: dict[str, float] = {}
        self._moved: dict[str, Update] = {}

    def due(self, environment: Environment, found: Found | None) -> bool:
        """Whether it is to be repaired, given what the tools have of it; None: nothing."""
        has = found or _NOTHING
        ready = environment.state == State.STATE_READY
        whole = has.worktree and (has.provisioned or not ready)
        kept = ready or environment.state == State.STATE_SUSPENDED
        if whole or not kept or environment.operation != Operation.OPERATION_NONE:
            self._missing.pop(environment.uid, None)
            return False
        since = self._missing.get(environment.uid)
        if since is None:
            self._missing[environment.uid] = time.monotonic()
            return False
        return time.monotonic() - since >= self._grace

    def forget(self, known: Collection[str]) -> None:
        """Of what has no record, nothing is remembered."""
        self._missing = {uid: at for uid, at in self._missing.items() if uid in known}

    async def repair(self, claimed: Environment) -> Environment:
        """Make a claimed record and what there is of it agree, and give the claim back."""
        try:
            if claimed.state not in (State.STATE_READY, State.STATE_SUSPENDED):
                return await self._records.release(claimed)
            if not await self._has_worktree(claimed):
                return await self._lost(claimed)
            if claimed.state == State.STATE_READY:
                return await self._provision(claimed)
            return await self._records.release(claimed)
        except LeaseLost:
            raise
        except Exception:
            await give_back(self._records, claimed)
            raise

    async def advance(self, environment: Environment, found: Found | None) -> None:
        """Note the handle that the provider has of it now, if that is a later one: together
        with those of others, at the latest when `advanced` is called."""
        if found is None or found.generation <= environment.handle_generation:
            return
        moved = next_handle(environment, found.handle, found.generation)
        moved.etag = environment.etag
        self._moved[environment.uid] = Update(environment.tenant, moved, HANDLE)
        if len(self._moved) >= _TOGETHER:
            await self.advanced()

    async def advanced(self) -> None:
        """Write the handles that were gathered. What was written meanwhile waits for the next
        look."""
        moved, self._moved = self._moved, {}
        for uid, (_, why) in zip(
            moved, await write_all(self._records, moved.values()), strict=True
        ):
            said = "its handle moved" if why == MADE else "another was faster"
            _log.info(said, extra=_fields(uid))

    async def _has_worktree(self, claimed: Environment) -> bool:
        request = git_pb2.GetWorktreeRequest(uid=claimed.uid)
        try:
            await self._git.unary(self._git.rpc.GetWorktree, request, timeout=_SECONDS)
        except grpc.aio.AioRpcError as error:
            if reason(error) == ErrorReason.ERROR_REASON_WORKTREE_NOT_FOUND:
                return False
            raise
        return True

    async def _lost(self, claimed: Environment) -> Environment:
        _log.error("its worktree is lost", extra=_fields(claimed.uid))
        why = failure(ErrorReason.ERROR_REASON_WORKTREE_LOST, "its files are gone from the node")
        return await self._records.move(claimed, State.STATE_FAILED, failure=why, release=True)

    async def _provision(self, claimed: Environment) -> Environment:
        """By its uid: what is there all the same stays as it is."""
        made = Environment()
        made.CopyFrom(claimed)
        try:
            await self._saga.provision(made, "")
        except (ServiceError, grpc.aio.AioRpcError) as error:
            if isinstance(error, LeaseLost) or transient(error):
                raise
            why = failure(
                ErrorReason.ERROR_REASON_ENVIRONMENT_LOST,
                f"its sandbox is gone and cannot be made again: {said(error)}",
            )
            return await self._records.move(claimed, State.STATE_FAILED, failure=why, release=True)
        await self._records.update(made, PROVISIONED, fencing_token=made.fencing_token)
        _log.warning("provisioned again: its home and /tmp are new", extra=_fields(claimed.uid))
        return await self._records.release(claimed)


def _fields(uid: str) -> dict[str, dict[str, str]]:
    return {"fields": {"uid": uid}}
