"""Creates a workspace, of a repository or another one, or joins what the same request began."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Final

import grpc

from cove.gateway.v1 import gateway_pb2 as pb
from cove.git.v1 import git_pb2
from cove.registry.v1 import registry_pb2
from cove.registry.v1.registry_pb2 import Environment, EnvironmentSource, EnvironmentSpec
from gateway import names
from gateway.drivers import Drivers
from gateway.errors import CreateFailed, LeaseLost, StillUndone, WorkspaceExists
from gateway.nodes import Nodes, on_node_of
from gateway.operations import Operations
from gateway.quotas import Quotas
from gateway.records import Records, State, duration
from gateway.saga import FIELDS, Saga
from gateway.tools import retold
from servicekit import calls

_UNDONE: Final = 10_000
_FIRST_LOOK: Final = 0.05
_LAST_LOOK: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A workspace to be made."""

    workspace_id: str
    environment: Environment
    """What it is registered with."""
    request_id: str
    credentials: git_pb2.Credentials | None = None
    wait: bool = True
    """Until it is ready."""


class Creations:
    def __init__(
        self,
        records: Records,
        operations: Operations,
        saga: Saga,
        quotas: Quotas,
        drivers: Drivers,
        nodes: Nodes,
    ) -> None:
        self._nodes = nodes
        self._quotas = quotas
        self._drivers = drivers
        self._records = records
        self._operations = operations
        self._saga = saga
        self._undone: OrderedDict[str, None] = OrderedDict()

    async def create(self, request: pb.CreateWorkspaceRequest) -> Environment:
        """The record: READY, or PENDING when the caller asked not to wait.

        What is begun goes on when the caller leaves.
        """
        return await self._create(
            Wanted(
                workspace_id=request.workspace_id or _made_up(request.request_id),
                environment=Environment(
                    labels=request.workspace.labels,
                    annotations=request.workspace.annotations,
                    spec=request.workspace.spec,
                    keep_on_failure=request.on_failure == pb.ON_FAILURE_KEEP,
                ),
                request_id=request.request_id,
                credentials=request.credentials if request.HasField("credentials") else None,
                wait=request.return_when != pb.RETURN_WHEN_ACCEPTED,
            )
        )

    async def fork(self, source: Environment, request: pb.ForkWorkspaceRequest) -> Environment:
        """The record, READY, of a workspace made of `source`, with the same spec."""
        environment = Environment(
            labels=request.labels,
            annotations=request.annotations,
            spec=source.spec,
            node=source.node,
            source=EnvironmentSource(
                name=source.name, uid=source.uid, snapshot_id=request.snapshot_id
            ),
        )
        environment.spec.branch = ""
        return await self._create(
            Wanted(
                workspace_id=request.workspace_id or _made_up(request.request_id),
                environment=environment,
                request_id=request.request_id,
            )
        )

    async def _create(self, wanted: Wanted) -> Environment:
        environment = wanted.environment
        environment.node = environment.node or self._nodes.place(environment.spec)
        on_node_of(environment)
        await self._validate(environment.spec)
        registered, fresh = await self._operations.unbroken(self._begun(wanted))
        running = self._operations.running(registered.uid)
        if not wanted.wait:
            return registered if fresh else await self._current(registered)
        if running:
            try:
                made = await asyncio.shield(running)
            except LeaseLost:
                made = None
            if made:
                return made
        return await self._settled(registered)

    async def _validate(self, spec: EnvironmentSpec) -> None:
        await self._quotas.admit()
        try:
            await self._drivers.validate(spec)
        except grpc.aio.AioRpcError as error:
            raise retold(error, fields=FIELDS) from error

    async def _begun(self, wanted: Wanted) -> tuple[Environment, bool]:
        """As `_register`; what was made is begun with."""
        registered, fresh = await self._register(wanted)
        if fresh:
            work = partial(self._make, credentials=wanted.credentials, request_id=wanted.request_id)
            self._operations.start(registered, work)
        return registered, fresh

    async def _register(self, wanted: Wanted) -> tuple[Environment, bool]:
        """The record of this request, and whether this call made it.

        A request whose create was undone here begins anew when it is repeated, and that is
        found wherever it is repeated again. Raises `StillUndone` while the undoing goes on.
        """
        step, before = "register", None
        while True:
            asked = registry_pb2.RegisterEnvironmentRequest(
                environment_id=wanted.workspace_id,
                environment=wanted.environment,
                request_id=names.derived(wanted.request_id, step),
                holder=self._operations.holder(),
                lease=duration(self._operations.lease),
            )
            try:
                registered = await self._records.register(asked, wanted.request_id)
            except WorkspaceExists:
                if before is None:
                    raise
                if before.uid not in self._undone:
                    return before, False
                current = await self._records.find(names.workspace_name(before.name))
                if current is None:
                    continue  # It was still being undone, and is no more.
                if current.uid != before.uid:
                    raise
                return self._made_after_all(current), False
            if registered.operation_holder == asked.holder:
                return registered, True
            if registered.uid not in self._undone and not await self._is_anothers(registered):
                return registered, False
            before = registered
            step = f"register/{before.uid}"

    def _made_after_all(self, current: Environment) -> Environment:
        """What this request made: it could not be undone here, as the registry was away, and
        another finished it. Raises `StillUndone` while it is undone."""
        if current.state == State.STATE_DELETING:
            raise StillUndone(current, names.workspace_name(current.name))
        self._undone.pop(current.uid, None)
        return current

    async def _is_anothers(self, registered: Environment) -> bool:
        """Whether the id was taken anew: by others, or by this request at another gateway."""
        current = await self._records.find(names.workspace_name(registered.name))
        return current is not None and current.uid != registered.uid

    async def _make(
        self, environment: Environment, *, credentials: git_pb2.Credentials | None, request_id: str
    ) -> Environment:
        try:
            return await self._saga.make(
                environment, credentials=credentials, request_id=request_id
            )
        except LeaseLost:
            raise
        except Exception:
            if not environment.keep_on_failure:
                self._undone[environment.uid] = None
                if len(self._undone) > _UNDONE:
                    self._undone.popitem(last=False)
            raise

    async def _settled(self, registered: Environment) -> Environment:
        """The record when whoever makes it has ended. Raises as `_current`."""
        pause = _FIRST_LOOK
        while True:
            current = await self._current(registered)
            if current.state in (State.STATE_DELETING, State.STATE_DELETED):
                raise CreateFailed(
                    "the workspace of this request could not be made, or is being deleted",
                    name=names.workspace_name(current.name),
                )
            if current.state != State.STATE_PENDING:
                return current
            await asyncio.sleep(pause)
            pause = min(_LAST_LOOK, pause * 2)

    async def _current(self, registered: Environment) -> Environment:
        """The record as it is. Raises `CreateFailed`, and `StillUndone` before that is certain."""
        name = names.workspace_name(registered.name)
        current = await self._records.find(name)
        if current is None or current.uid != registered.uid:
            raise CreateFailed(
                "the workspace of this request is gone: it could not be made, or was deleted",
                remedy="Create it with a new request id.",
                name=name,
            )
        undoing = current.operation == Environment.OPERATION_CREATING
        if current.state == State.STATE_DELETING and undoing:
            raise StillUndone(current, name)
        if current.state == State.STATE_FAILED:
            raise CreateFailed(
                current.failure.message or "it failed", name=name, cause=current.failure.reason
            )
        return current


def _made_up(request_id: str) -> str:
    return names.made_up(request_id, calls.current().identity.principal)
