"""Changes what a workspace may reach: in its record first, then where it is enforced.

Both under one lease, so that a change is finished by another gateway when this one dies between.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final

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
from gateway.tools import Tools, retold, transient
from servicekit.errors import ServiceError

Work = Callable[[Environment], Coroutine[Any, Any, Result]]

NETWORK: Final = "spec.network"
_OVER: Final = timedelta(microseconds=1)
_LEAVE_SECONDS: Final = 1.0


class Updates:
    def __init__(self, tools: Tools, records: Records, operations: Operations) -> None:
        self._nodes = tools.nodes
        self._provider = tools.provider
        self._records = records
        self._operations = operations

    async def update(
        self, request: pb.UpdateWorkspaceRequest, asked: Environment, fields: Iterable[str]
    ) -> Environment:
        """Write `fields`, the network among them, and put it in force. Returns the record."""
        await self._validate(asked)
        work = partial(
            self._write, asked=asked, fields=tuple(fields), request_id=request.request_id
        )
        claimed, task = await self._operations.claim(
            request.workspace.name,
            Operation.OPERATION_UPDATING,
            work,
            etag=request.workspace.etag,
            request_id=request.request_id,
        )
        if task is None:
            task = await self._again(claimed, work)
        made = await asyncio.shield(task)
        return made or await self._records.get(request.workspace.name)

    async def _again(self, first: Environment, work: Work) -> "asyncio.Task[Result]":
        """The request came before, and was given `first`: whether it wrote, only the registry
        knows, which writes it once."""
        if running := self._operations.running(first.uid):
            await asyncio.wait((running,))
        name = workspace_name(first.name)
        current = await self._records.get(name)
        if current.uid != first.uid:
            raise WorkspaceNotFound(name)
        _, task = await self._operations.claim(
            name, Operation.OPERATION_UPDATING, work, etag=current.etag
        )
        assert task
        return task

    async def finish(self, claimed: Environment) -> Environment:
        """Put in force what the record says, and give the claim back."""
        if claimed.state == State.STATE_READY:
            await self._enforce(claimed)
        return await self._records.release(claimed)

    async def _write(
        self, claimed: Environment, *, asked: Environment, fields: tuple[str, ...], request_id: str
    ) -> Environment:
        if claimed.state != State.STATE_READY:
            await give_back(self._records, claimed)
            raise not_ready(claimed)
        asked.name = claimed.name
        token = claimed.fencing_token
        try:
            written = await self._records.update(
                asked, fields, fencing_token=token, request_id=request_id
            )
            if written.fencing_token != token:  # It was written before; another may be since.
                written = await self._records.get(workspace_name(claimed.name))
        except LeaseLost:
            raise
        except Exception as error:
            if not transient(error):
                await give_back(self._records, claimed)
            else:  # It may be written all the same: then it has to be put in force.
                await self._leave(claimed)
            raise
        return await self.finish_or_leave(written)

    async def finish_or_leave(self, written: Environment) -> Environment:
        """What cannot be put in force for good is the caller's to change again.

        What may be later is left to whoever takes it over, which may be at once.
        """
        try:
            return await self.finish(written)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                await give_back(self._records, written)
            else:
                await self._leave(written)
            raise retold(error, words=words(written)) from error

    async def _leave(self, claimed: Environment) -> None:
        with suppress(ServiceError, grpc.aio.AioRpcError):
            await self._records.renew(claimed, _OVER, timeout=_LEAVE_SECONDS)

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
            with self._nodes.anywhere():
                await self._provider.unary(self._provider.rpc.ValidateSpec, request)
        except grpc.aio.AioRpcError as error:
            raise retold(error, fields=NETWORK_FIELDS) from error
