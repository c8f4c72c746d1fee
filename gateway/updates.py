"""Changes what a workspace may reach: in its record first, then where it is enforced.

Both under one lease, so that a change is finished by another gateway when this one dies between.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Final

import grpc

from cove.gateway.v1 import gateway_pb2 as pb
from cove.provider.v1 import provider_pb2
from cove.registry.v1.registry_pb2 import Environment
from gateway.convert import NETWORK_FIELDS, provider_network
from gateway.delete import give_back, not_ready
from gateway.errors import LeaseLost, WorkspaceNotFound
from gateway.names import words, workspace_name
from gateway.operations import Operations, Result
from gateway.records import Operation, Records, State
from gateway.tools import Tools, retold
from servicekit.errors import ServiceError

NETWORK: Final = "spec.network"
_OVER: Final = timedelta(microseconds=1)
_LEAVE_SECONDS: Final = 1.0


class Updates:
    def __init__(self, tools: Tools, records: Records, operations: Operations) -> None:
        self._provider = tools.provider
        self._records = records
        self._operations = operations

    async def update(
        self, request: pb.UpdateWorkspaceRequest, asked: Environment, fields: Iterable[str]
    ) -> Environment:
        """Write `fields`, the network among them, and put it in force. Returns the record."""
        await self._validate(asked)
        claimed, task = await self._operations.claim(
            request.workspace.name,
            Operation.OPERATION_UPDATING,
            partial(self._write, asked=asked, fields=tuple(fields)),
            etag=request.workspace.etag,
            request_id=request.request_id,
        )
        if task is None:
            task = self._operations.running(claimed.uid) or await self._again(claimed)
        made = await asyncio.shield(task) if task else None
        return made or await self._records.get(request.workspace.name)

    async def _again(self, first: Environment) -> "asyncio.Task[Result] | None":
        """The request came before, and was given `first`. None: what it wrote is in force."""
        name = workspace_name(first.name)
        current = await self._records.get(name)
        if current.uid != first.uid:
            raise WorkspaceNotFound(name)
        if current.operation != Operation.OPERATION_UPDATING:
            return None
        _, task = await self._operations.claim(
            name, Operation.OPERATION_UPDATING, self._finish_or_leave, etag=current.etag
        )
        return task

    async def finish(self, claimed: Environment) -> Environment:
        """Put in force what the record says, and give the claim back."""
        if claimed.state == State.STATE_READY:
            await self._enforce(claimed)
        return await self._records.release(claimed)

    async def _write(
        self, claimed: Environment, *, asked: Environment, fields: tuple[str, ...]
    ) -> Environment:
        try:
            if claimed.state != State.STATE_READY:
                raise not_ready(claimed)
            asked.name = claimed.name
            written = await self._records.update(asked, fields, fencing_token=claimed.fencing_token)
        except LeaseLost:
            raise
        except Exception:
            await give_back(self._records, claimed)
            raise
        return await self._finish_or_leave(written)

    async def _finish_or_leave(self, written: Environment) -> Environment:
        """What cannot be put in force for good is the caller's to change again.

        What may be later is left to whoever takes it over, which may be at once.
        """
        try:
            return await self.finish(written)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                await give_back(self._records, written)
            else:
                with suppress(ServiceError, grpc.aio.AioRpcError):
                    await self._records.renew(written, _OVER, timeout=_LEAVE_SECONDS)
            raise retold(error, words=words(written)) from error

    async def _enforce(self, environment: Environment) -> None:
        request = provider_pb2.UpdateNetworkRequest(
            handle=environment.handle,
            network=provider_network(environment.spec),
            revision=environment.fencing_token,
        )
        await self._provider.unary(self._provider.rpc.UpdateNetwork, request)

    async def _validate(self, asked: Environment) -> None:
        spec = provider_pb2.Spec(network=provider_network(asked.spec))
        request = provider_pb2.ValidateSpecRequest(spec=spec)
        try:
            await self._provider.unary(self._provider.rpc.ValidateSpec, request)
        except grpc.aio.AioRpcError as error:
            raise retold(error, fields=NETWORK_FIELDS) from error
