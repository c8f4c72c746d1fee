"""Changes of all workspaces as one unbroken stream."""

from collections.abc import AsyncGenerator, Iterator
from typing import Final, TypeAlias

from cove import status
from cove.connection import Connection
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import WorkspaceServiceStub

Put: TypeAlias = pb.WatchWorkspacesResponse.Put
Delete: TypeAlias = pb.WatchWorkspacesResponse.Delete
SnapshotEnd: TypeAlias = pb.WatchWorkspacesResponse.SnapshotEnd

Change: TypeAlias = Put | Delete | SnapshotEnd
"""A workspace as it is now, one that is gone for good or left the selection, or that all there
are were told."""

_HISTORY_GONE: Final = frozenset(
    {"ERROR_REASON_REVISION_COMPACTED", "ERROR_REASON_REVISION_IN_FUTURE"}
)
_TOO_SLOW: Final = "ERROR_REASON_WATCHER_TOO_SLOW"


async def watch_workspaces(
    connection: Connection,
    from_revision: int = 0,
    filter: str = "",  # noqa: A002 - the contract's word.
) -> AsyncGenerator[Change, None]:
    """Yield each workspace as it is, `SnapshotEnd`, then what changes; never ends by itself.

    With a `filter` only what it selects: one that a change takes out of the selection comes as a
    `Delete`. With `from_revision` only what changed after it. A drop goes unnoticed: it goes on
    at the revision where it was. Where that history is no longer kept, each workspace is told
    anew and what is gone meanwhile as a `Delete` without revision, if it was told of before; then
    `SnapshotEnd` comes again, and what was not told since the one before is gone.
    """
    stub = WorkspaceServiceStub(connection.channel)
    patience = connection.patience()
    view = _View(from_revision)
    while True:
        began = view.revision
        request = pb.WatchWorkspacesRequest(from_revision=began, filter=filter)
        view.begin()
        patience.begin()
        try:
            async with connection.stream(stub.WatchWorkspaces, request) as answers:
                async for answer in answers:
                    before = view.revision
                    for change in view.told(answer):
                        yield change
                    if view.revision != before:
                        patience.refill()
            raise status.Unavailable("the stream ended by itself", broken_off=True)
        except status.Unavailable as error:
            await patience.wait(error)
        except status.OutOfRange as error:
            if error.reason not in _HISTORY_GONE:
                raise
            view.revision = 0
        except status.ResourceExhausted as error:
            if error.reason != _TOO_SLOW or view.revision == began:
                raise


class _View:
    """How far the watch came, and what the reader knows of."""

    def __init__(self, revision: int) -> None:
        self.revision = revision
        self._known: dict[str, str] = {}
        self._fresh: set[str] = set()
        """The names of the snapshot that is under way."""

    def begin(self) -> None:
        """A new attempt: what came of a snapshot that was cut off comes again."""
        self._fresh.clear()

    def told(self, answer: pb.WatchWorkspacesResponse) -> Iterator[Change]:
        match answer.WhichOneof("event"):
            case "snapshot":
                self._fresh.add(answer.snapshot.name)
                self._known[answer.snapshot.name] = answer.snapshot.uid
                yield Put(workspace=answer.snapshot)
            case "snapshot_end":
                for name in [each for each in self._known if each not in self._fresh]:
                    yield Delete(name=name, uid=self._known.pop(name))
                self._fresh.clear()
                self.revision = answer.snapshot_end.revision
                yield answer.snapshot_end
            case "put":
                self._known[answer.put.workspace.name] = answer.put.workspace.uid
                self.revision = answer.put.revision
                yield answer.put
            case "delete":
                self._known.pop(answer.delete.name, None)
                self.revision = answer.delete.revision
                yield answer.delete
            case "heartbeat":
                self.revision = answer.heartbeat.revision
