"""Snapshots of a workspace: what it was at a time, to fork from."""

from collections.abc import Sequence

from cove.connection import Connection
from cove.connection import request_id as new_request_id
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import WorkspaceServiceStub


class Snapshots:
    """All of one workspace. They go with it."""

    def __init__(self, connection: Connection, workspace: str) -> None:
        self._connection = connection
        self._stub = WorkspaceServiceStub(connection.channel)
        self._workspace = workspace

    async def create(self, id: str = "", *, request_id: str = "") -> pb.Snapshot:  # noqa: A002
        """Keep the files and the head as they are now, uncommitted work and all.

        While a process runs in the workspace, all are frozen until what differs is copied. The
        server makes an `id` where none is given. Raises `AlreadyExists` when there is one of this
        id. With the same `request_id`, a UUID, it is done once; see `Workspaces.create`.
        """
        request = pb.SnapshotWorkspaceRequest(
            name=self._workspace, snapshot_id=id, request_id=new_request_id(request_id)
        )
        return (await self._connection.unary(self._stub.SnapshotWorkspace, request)).snapshot

    async def list(self) -> Sequence[pb.Snapshot]:
        """The oldest first."""
        request = pb.ListSnapshotsRequest(parent=self._workspace)
        return (await self._connection.unary(self._stub.ListSnapshots, request)).snapshots

    async def delete(self, id: str, *, allow_missing: bool = False) -> None:  # noqa: A002
        """Remove one; what was forked from it stays. Raises `NotFound`."""
        request = pb.DeleteSnapshotRequest(
            name=f"{self._workspace}/snapshots/{id}",
            allow_missing=allow_missing,
            request_id=new_request_id(),
        )
        await self._connection.unary(self._stub.DeleteSnapshot, request)
