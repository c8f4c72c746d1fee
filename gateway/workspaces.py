"""WorkspaceService: what a workspace is, from create to delete."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from importlib.metadata import version
from typing import Final

import grpc

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import WorkspaceServiceServicer
from cove.provider.v1 import provider_pb2
from cove.registry.v1 import registry_pb2
from cove.registry.v1.registry_pb2 import Environment
from gateway import names
from gateway.convert import change, snapshot, workspace
from gateway.copies import Copies
from gateway.create import Creations
from gateway.delete import Deletions, Undeletions
from gateway.errors import FieldImmutable
from gateway.limits import LIFE, LifeLimits
from gateway.ready import Workspaces, in_words_of
from gateway.records import Records, State
from gateway.selection import recorded
from gateway.suspend import Suspensions
from gateway.tools import Tools, transient
from gateway.updates import NETWORK, Updates
from servicekit.errors import ServiceError
from servicekit.status import Context, OlderService

_TURN: Final = 64
"""How many are made before others get their turn."""
_UPDATABLE: Final = ("labels", "annotations")
_NAMED: Final = (*_UPDATABLE, NETWORK, *LIFE)
"""What a mask may name."""
_NOT_DELETED: Final = (
    *(State.STATE_PENDING, State.STATE_READY, State.STATE_SUSPENDED),
    *(State.STATE_FAILED, State.STATE_DELETING),
)


class WorkspaceServicer(WorkspaceServiceServicer):
    def __init__(
        self,
        tools: Tools,
        records: Records,
        creations: Creations,
        deletions: Deletions,
        undeletions: Undeletions,
        workspaces: Workspaces,
        copies: Copies,
        updates: Updates,
        suspensions: Suspensions,
        limits: LifeLimits,
    ) -> None:
        self._nodes = tools.nodes
        self._provider = tools.provider
        self._executor = tools.executor
        self._records = records
        self._creations = creations
        self._deletions = deletions
        self._undeletions = undeletions
        self._workspaces = workspaces
        self._copies = copies
        self._updates = updates
        self._suspensions = suspensions
        self._limits = limits

    async def CreateWorkspace(
        self, request: pb.CreateWorkspaceRequest, context: Context
    ) -> pb.CreateWorkspaceResponse:
        self._limits.check(request.workspace.spec)
        created = await self._creations.create(request)
        return pb.CreateWorkspaceResponse(workspace=workspace(created))

    async def GetWorkspace(
        self, request: pb.GetWorkspaceRequest, context: Context
    ) -> pb.GetWorkspaceResponse:
        found = await self._records.look(request.name)
        return pb.GetWorkspaceResponse(workspace=workspace(found))

    async def ListWorkspaces(
        self, request: pb.ListWorkspacesRequest, context: Context
    ) -> pb.ListWorkspacesResponse:
        page = await self._records.list(
            registry_pb2.ListEnvironmentsRequest(
                page_size=request.page_size,
                page_token=request.page_token,
                states=() if request.show_deleted else _NOT_DELETED,
                filter=recorded(request.filter),
                order_by=request.order_by,
            )
        )
        answer = pb.ListWorkspacesResponse(
            next_page_token=page.next_page_token, page_size=page.page_size
        )
        for number, each in enumerate(page.environments, start=1):
            answer.workspaces.append(workspace(each))
            if number % _TURN == 0:
                await asyncio.sleep(0)
        return answer

    async def UpdateWorkspace(
        self, request: pb.UpdateWorkspaceRequest, context: Context
    ) -> pb.UpdateWorkspaceResponse:
        given = request.workspace
        fields = list(request.update_mask.paths) or [
            field for field in _UPDATABLE if getattr(given, field)
        ]
        for field in fields:
            if field not in _NAMED:
                raise FieldImmutable(field)
        if not request.update_mask.paths and (ignored := _immutable(given)):
            raise FieldImmutable(ignored)
        if not fields:
            return pb.UpdateWorkspaceResponse(
                workspace=workspace(await self._records.get(given.name))
            )
        asked = Environment(
            name=names.environment_name(given.name),
            labels=given.labels,
            annotations=given.annotations,
        )
        self._limits.take(fields, given.spec, asked.spec)
        if NETWORK in fields:
            asked.spec.network.CopyFrom(given.spec.network)
            with self._limits.in_words():
                updated = await self._updates.update(request, asked, fields)
            return pb.UpdateWorkspaceResponse(workspace=workspace(updated))
        with self._limits.in_words():
            updated = await self._records.update(
                asked, fields, etag=given.etag, request_id=request.request_id
            )
        return pb.UpdateWorkspaceResponse(workspace=workspace(updated))

    async def DeleteWorkspace(
        self, request: pb.DeleteWorkspaceRequest, context: Context
    ) -> pb.DeleteWorkspaceResponse:
        kept = await self._deletions.delete(request)
        return pb.DeleteWorkspaceResponse(workspace=workspace(kept) if kept else None)

    async def UndeleteWorkspace(
        self, request: pb.UndeleteWorkspaceRequest, context: Context
    ) -> pb.UndeleteWorkspaceResponse:
        restored = await self._undeletions.undelete(request)
        return pb.UndeleteWorkspaceResponse(workspace=workspace(restored))

    async def ForkWorkspace(
        self, request: pb.ForkWorkspaceRequest, context: Context
    ) -> pb.ForkWorkspaceResponse:
        source = await self._workspaces.kept(request.name)
        return pb.ForkWorkspaceResponse(
            workspace=workspace(await self._creations.fork(source, request))
        )

    async def SnapshotWorkspace(
        self, request: pb.SnapshotWorkspaceRequest, context: Context
    ) -> pb.SnapshotWorkspaceResponse:
        environment = await self._workspaces.kept(request.name)
        snapshot_id = names.snapshot_id(request.snapshot_id, request.request_id)
        with in_words_of(environment):
            made = await self._copies.snapshot(environment, snapshot_id, request.request_id)
        return pb.SnapshotWorkspaceResponse(snapshot=snapshot(environment, made))

    async def ListSnapshots(
        self, request: pb.ListSnapshotsRequest, context: Context
    ) -> pb.ListSnapshotsResponse:
        environment = await self._workspaces.kept(request.parent)
        with in_words_of(environment):
            found = await self._copies.list(environment)
        return pb.ListSnapshotsResponse(snapshots=[snapshot(environment, one) for one in found])

    async def DeleteSnapshot(
        self, request: pb.DeleteSnapshotRequest, context: Context
    ) -> pb.DeleteSnapshotResponse:
        name, snapshot_id = names.split_snapshot(request.name)
        environment = await self._workspaces.kept(name)
        with in_words_of(environment):
            await self._copies.remove(
                environment, snapshot_id, request.request_id, allow_missing=request.allow_missing
            )
        return pb.DeleteSnapshotResponse()

    async def WatchWorkspaces(
        self, request: pb.WatchWorkspacesRequest, context: Context
    ) -> AsyncIterator[pb.WatchWorkspacesResponse]:
        told_of = self._records.watch(request.from_revision, recorded(request.filter))
        async with aclosing(told_of) as events:
            async for event in events:
                if told := change(event):
                    yield told

    async def GetCapabilities(
        self, request: pb.GetCapabilitiesRequest, context: Context
    ) -> pb.GetCapabilitiesResponse:
        with self._nodes.anywhere():
            asked = provider_pb2.GetCapabilitiesRequest()
            answer = await self._provider.unary(self._provider.rpc.GetCapabilities, asked)
            rpc = self._executor.rpc.GetCapabilities
            try:
                executor = await self._executor.unary(rpc, executor_pb2.GetCapabilitiesRequest())
            except (ServiceError, grpc.aio.AioRpcError) as error:
                if not isinstance(error, OlderService) and not transient(error):
                    raise
                executor = None
        return pb.GetCapabilitiesResponse(
            provider=answer.capabilities,
            drivers=answer.drivers,
            version=version("cove-server"),
            executor=executor.capabilities if executor else None,
            life=self._limits.told(),
            nodes=self._nodes.told(),
        )

    async def SuspendWorkspace(
        self, request: pb.SuspendWorkspaceRequest, context: Context
    ) -> pb.SuspendWorkspaceResponse:
        suspended = await self._suspensions.suspend(request)
        return pb.SuspendWorkspaceResponse(workspace=workspace(suspended))

    async def ResumeWorkspace(
        self, request: pb.ResumeWorkspaceRequest, context: Context
    ) -> pb.ResumeWorkspaceResponse:
        resumed = await self._suspensions.resume(request)
        return pb.ResumeWorkspaceResponse(workspace=workspace(resumed))


def _immutable(given: pb.Workspace) -> str:
    """A field that is set and cannot be written; what a read gave may be sent back."""
    return "spec" if given.HasField("spec") else ""
