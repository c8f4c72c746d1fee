"""The registry as the gateway uses it: workspaces by their names, failures in their words."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.options.v1.options_pb2 import Role
from cove.registry.v1 import registry_pb2 as pb
from cove.registry.v1.registry_pb2_grpc import RegistryServiceStub
from gateway import names
from gateway.errors import LeaseLost, WorkspaceExists, WorkspaceNotFound
from gateway.memory import Key, Memory
from gateway.tools import Tool, retold
from servicekit import calls
from servicekit.identity import Identity
from servicekit.status import reason, reason_of

State = pb.Environment.State
Operation = pb.Environment.Operation
Cause = pb.Environment.Cause

Req = TypeVar("Req")
Res = TypeVar("Res")

_SECONDS: Final = 30.0
_PAGE: Final = 500
_BATCH: Final = 500
_ALL_TENANTS: Final = "-"


class Records:
    """Reads and writes records. What is written under a lease carries its fencing token.

    Raises `WorkspaceNotFound`, `WorkspaceExists`, `LeaseLost`, and what else the
    registry says, with the names that callers know.
    """

    def __init__(self, registry: Tool[RegistryServiceStub]) -> None:
        self.memory = Memory()
        self._registry = registry
        self._rpc = registry.rpc

    async def get(self, workspace: str) -> pb.Environment:
        """As it is in the registry now."""
        return _reached(await self._get(workspace), workspace)

    async def _get(self, workspace: str) -> pb.Environment:
        key = _key(workspace)
        request = pb.GetEnvironmentRequest(name=key.name)
        with self.memory.loading(key) as load:
            try:
                answer = await self._call(self._rpc.GetEnvironment, request, workspace)
            except WorkspaceNotFound:
                self.memory.forget(key)
                raise
            self.memory.learn(answer.environment)
            self.memory.keep(load, answer.environment)
        return answer.environment

    async def look(self, workspace: str) -> pb.Environment:
        """As `get`; for a call that only reads as it was when the registry told of it last.

        That is what this gateway has written, or later.
        """
        known = self.memory.find(_key(workspace)) if calls.current().reads else None
        return _reached(known, workspace) if known else await self.get(workspace)

    async def find(self, workspace: str) -> pb.Environment | None:
        """None: nothing has the name."""
        try:
            return await self.get(workspace)
        except WorkspaceNotFound:
            return None

    async def list(self, request: pb.ListEnvironmentsRequest) -> pb.ListEnvironmentsResponse:
        page = await self._call(self._rpc.ListEnvironments, request, "")
        for environment in page.environments:
            self.memory.learn(environment)
        return page

    async def watch(
        self,
        from_revision: int,
        filter: str,  # noqa: A002 - the contract's word.
    ) -> AsyncGenerator[pb.WatchEnvironmentsResponse, None]:
        """The changes of the caller's tenant, as the registry tells them; holds none of them."""
        request = pb.WatchEnvironmentsRequest(from_revision=from_revision, filter=filter)
        async with self._registry.stream(self._rpc.WatchEnvironments, request) as events:
            async for event in events:
                self.memory.hear(event)
                yield event

    async def follow(self) -> AsyncGenerator[pb.WatchEnvironmentsResponse, None]:
        """The changes of all tenants from now on."""
        request = pb.WatchEnvironmentsRequest(tenant=_ALL_TENANTS, changes_only=True)
        with calls.detached(identity=Identity("gateway", "", Role.ROLE_SERVICE)):
            async with self._registry.stream(self._rpc.WatchEnvironments, request) as events:
                async for event in events:
                    yield event

    async def everything(self) -> AsyncIterator[pb.Environment]:
        """The records of all tenants."""
        request = pb.ListEnvironmentsRequest(page_size=_PAGE, tenant=_ALL_TENANTS)
        while True:
            page = await self.list(request)
            for environment in page.environments:
                yield environment
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def register(
        self, request: pb.RegisterEnvironmentRequest, caller_request_id: str
    ) -> pb.Environment:
        name = f"{names.WORKSPACES}{request.environment_id}"
        rpc = self._rpc.RegisterEnvironment
        return await self._write(rpc, request, name, caller_request_id)

    async def deregister(self, environment: pb.Environment) -> None:
        request = pb.DeregisterEnvironmentRequest(
            name=environment.name,
            uid=environment.uid,
            fencing_token=environment.fencing_token,
            allow_missing=True,
            request_id=names.derived("", ""),
        )
        try:
            await self._call(self._rpc.DeregisterEnvironment, request, environment.name)
        finally:
            self.memory.forget(_key(environment.name))

    async def claim(
        self,
        workspace: str,
        operation: Operation.ValueType,
        *,
        holder: str,
        lease: timedelta,
        etag: str = "",
        request_id: str = "",
        cause: Cause.ValueType = Cause.CAUSE_UNSPECIFIED,
        preempt: bool = False,
    ) -> pb.Environment:
        """A record whose `operation_holder` is another's: the claim was a replay.

        With `preempt` it is taken from whoever does something else to it.
        """
        request = pb.ClaimOperationRequest(
            name=names.environment_name(workspace),
            operation=operation,
            holder=holder,
            lease=duration(lease),
            etag=etag,
            preempt=preempt,
            request_id=names.derived(request_id, "claim"),
            cause=cause,
        )
        rpc = self._rpc.ClaimOperation
        return await self._write(rpc, request, workspace, request_id)

    async def renew(self, environment: pb.Environment, lease: timedelta, *, timeout: float) -> None:
        request = pb.RenewOperationRequest(
            name=environment.name,
            fencing_token=environment.fencing_token,
            lease=duration(lease),
        )
        await self._call(self._rpc.RenewOperation, request, environment.name, timeout=timeout)

    async def release(self, environment: pb.Environment) -> pb.Environment:
        request = pb.ReleaseOperationRequest(
            name=environment.name, fencing_token=environment.fencing_token
        )
        rpc = self._rpc.ReleaseOperation
        return await self._write(rpc, request, environment.name)

    async def update(
        self,
        environment: pb.Environment,
        fields: Iterable[str],
        *,
        fencing_token: int = 0,
        etag: str = "",
        request_id: str = "",
    ) -> pb.Environment:
        """Write these fields of `environment`, which has the new values; its etag is not used."""
        asked = pb.Environment()
        asked.CopyFrom(environment)
        asked.etag = etag
        request = pb.UpdateEnvironmentRequest(
            environment=asked,
            update_mask=FieldMask(paths=fields),
            fencing_token=fencing_token,
            request_id=names.derived(request_id, "update"),
        )
        rpc = self._rpc.UpdateEnvironment
        return await self._write(rpc, request, environment.name, request_id)

    async def update_all(
        self, updates: Sequence[tuple[pb.Environment, Iterable[str]]]
    ) -> Sequence[ErrorReason.ValueType]:
        """Write these fields of each, under its etag, in few commits: why each was refused.

        Unspecified: it was not. All of them are the current tenant's.
        """
        reasons: list[ErrorReason.ValueType] = []
        for start in range(0, len(updates), _BATCH):
            request = pb.BatchUpdateEnvironmentsRequest(request_id=names.derived("", ""))
            for environment, fields in updates[start : start + _BATCH]:
                update = request.writes.add().update
                update.environment.CopyFrom(environment)
                update.update_mask.paths.extend(fields)
            try:
                answer = await self._call(self._rpc.BatchUpdateEnvironments, request, "")
            finally:
                for write in request.writes:
                    self.memory.forget(_key(write.update.environment.name))
            reasons += [reason_of(each.error) for each in answer.results]
        return reasons

    async def move(
        self,
        environment: pb.Environment,
        state: State.ValueType,
        *,
        failure: pb.Failure | None = None,
        purge_time: Timestamp | None = None,
        release: bool = False,
    ) -> pb.Environment:
        """To another state; with `release` the operation is over, too."""
        request = pb.UpdateEnvironmentStatusRequest(
            name=environment.name,
            state=state,
            failure=failure,
            purge_time=purge_time,
            fencing_token=environment.fencing_token,
            release_operation=release,
            request_id=names.derived("", ""),
        )
        rpc = self._rpc.UpdateEnvironmentStatus
        return await self._write(rpc, request, environment.name)

    async def _write(
        self, rpc: Any, request: Any, name: str, caller_request_id: str = ""
    ) -> pb.Environment:
        """The record as it is written. It is known here then; where no answer came, nothing is."""
        try:
            answer = await self._call(rpc, request, name, caller_request_id)
        except BaseException:
            self.memory.forget(_key(name))
            raise
        written: pb.Environment = answer.environment
        self.memory.learn(written)
        return written

    async def _call(
        self,
        rpc: grpc.aio.UnaryUnaryMultiCallable[Req, Res],
        request: Req,
        name: str,
        caller_request_id: str = "",
        *,
        timeout: float = _SECONDS,
    ) -> Res:
        workspace = names.WORKSPACES + name.rpartition("/")[2]
        try:
            return await self._registry.unary(rpc, request, timeout=timeout)
        except LeaseLost:
            raise LeaseLost("another gateway has it", name=workspace) from None
        except grpc.aio.AioRpcError as error:
            match reason(error):
                case ErrorReason.ERROR_REASON_ENVIRONMENT_NOT_FOUND:
                    raise WorkspaceNotFound(workspace) from None
                case ErrorReason.ERROR_REASON_ENVIRONMENT_EXISTS:
                    raise WorkspaceExists(workspace) from None
            words = {names.ENVIRONMENTS: names.WORKSPACES}
            if caller_request_id:
                words[request_id_of(request)] = caller_request_id
            raise retold(error, words=words) from None


def _reached(environment: pb.Environment, workspace: str) -> pb.Environment:
    """Raises `WorkspaceNotFound` for a share of what had the name before."""
    if calls.current().identity.workspace_uid in ("", environment.uid):
        return environment
    raise WorkspaceNotFound(names.WORKSPACES + workspace.rpartition("/")[2])


def _key(name: str) -> Key:
    """Of a record of the current tenant's, by any of its names."""
    return Key(calls.current().identity.tenant, names.ENVIRONMENTS + name.rpartition("/")[2])


def request_id_of(request: Any) -> str:
    request_id: str = request.request_id
    return request_id


def duration(value: timedelta) -> Duration:
    made = Duration()
    made.FromTimedelta(value)
    return made
