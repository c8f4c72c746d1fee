"""A gateway that fails as told, to see what the client makes of it.

It stands in for failures of the network and of a gateway only. It cannot prove that the real
gateway joins a repeated request, or cuts its output at an offset: tests/cli and tests/up run
the client against the real suite.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.executor.v1.executor_pb2 import (
    ArchiveEnd,
    Chunk,
    Chunks,
    Execution,
    Exit,
    File,
    FileChange,
    Output,
    Preview,
    ReadFileEnd,
    WatchEnd,
    WatchHeartbeat,
    WatchStarted,
)
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1 import gateway_pb2_grpc as rpc

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Failing: TypeAlias = Callable[[Context], Awaitable[None]]

PIECE = 10
ETAG = "1"


async def broken_off(context: Context) -> None:
    """What a client sees when the connection breaks."""
    await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")


def told(code: grpc.StatusCode, reason: ErrorReason.ValueType | str, **metadata: str) -> Failing:
    """A failure as the gateway tells it."""
    name = reason if isinstance(reason, str) else ErrorReason.Name(reason)

    async def fail(context: Context) -> None:
        status = status_pb2.Status(code=code.value[0], message="it does not do")
        info = error_details_pb2.ErrorInfo(reason=name, domain="cove", metadata=metadata)
        status.details.add().Pack(info)
        bad = error_details_pb2.BadRequest()
        bad.field_violations.add(field="workspace_id", description="not a label")
        status.details.add().Pack(bad)
        remedy = error_details_pb2.LocalizedMessage(locale="en", message="Try another.")
        status.details.add().Pack(remedy)
        await context.abort_with_status(rpc_status.to_status(status))

    return fail


class Gateway(rpc.WorkspaceServiceServicer, rpc.ExecutionServiceServicer, rpc.FileServiceServicer):
    """Fails with the next of `failures`, then does a little of what a gateway does."""

    def __init__(self) -> None:
        self.failures: list[Failing] = []
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.remaining: list[float] = []
        self.output = b""
        """Of every execution and file; streams break off after each piece when `fragile`."""
        self.input = bytearray()
        """Of every execution."""
        self.room = 1 << 30
        self.lingers = 0.0
        """Seconds for which a stream of output stands after its end."""
        self.fragile = False
        self.silent = False
        self.overlap = 0
        self.skip = 0
        self.previews: list[bytes] = []
        self.etag = ETAG
        self.asked = asyncio.Event()
        """Set once a call has come."""
        self.left = asyncio.Event()
        """Set once a stream of output was left."""
        self.present: set[str] = set()
        """The ids of the workspaces there are."""
        self.history: list[str] = []
        """The ids that were written after revision `compacted`, in order."""
        self.compacted = 0
        self.later: list[Failing] = []

    async def _note(self, request: Any, context: Context) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata() or ()))
        self.remaining.append(context.time_remaining() or 0)
        self.asked.set()
        if self.failures:
            await self.failures.pop(0)(context)

    async def CreateWorkspace(
        self, request: pb.CreateWorkspaceRequest, context: Context
    ) -> pb.CreateWorkspaceResponse:
        await self._note(request, context)
        name = f"workspaces/{request.workspace_id}"
        return pb.CreateWorkspaceResponse(workspace=pb.Workspace(name=name))

    async def GetWorkspace(
        self, request: pb.GetWorkspaceRequest, context: Context
    ) -> pb.GetWorkspaceResponse:
        await self._note(request, context)
        return pb.GetWorkspaceResponse(workspace=pb.Workspace(name=request.name))

    async def WatchWorkspaces(
        self, request: pb.WatchWorkspacesRequest, context: Context
    ) -> AsyncIterator[pb.WatchWorkspacesResponse]:
        """Fails with the next of `later` after each event that is told."""
        await self._note(request, context)
        async for event in self._changes(request.from_revision, context):
            yield event
            if self.later:
                await self.later.pop(0)(context)

    async def _changes(
        self, revision: int, context: Context
    ) -> AsyncIterator[pb.WatchWorkspacesResponse]:
        watched = pb.WatchWorkspacesResponse
        latest = self.compacted + len(self.history)
        if revision and not self.compacted <= revision <= latest:
            reason = ErrorReason.ERROR_REASON_REVISION_COMPACTED
            await told(grpc.StatusCode.OUT_OF_RANGE, reason)(context)
        if not revision:
            for id_ in sorted(self.present):
                yield watched(snapshot=pb.Workspace(name=f"workspaces/{id_}", uid=id_))
            yield watched(snapshot_end=watched.SnapshotEnd(revision=latest))
            revision = latest
        for id_ in self.history[revision - self.compacted :]:
            revision += 1
            workspace = pb.Workspace(name=f"workspaces/{id_}", uid=id_)
            yield watched(put=watched.Put(workspace=workspace, revision=revision))
        yield watched(heartbeat=watched.Heartbeat(revision=revision))
        await asyncio.Event().wait()

    async def GetExecution(
        self, request: pb.GetExecutionRequest, context: Context
    ) -> pb.GetExecutionResponse:
        return pb.GetExecutionResponse(
            execution=Execution(name=request.name, input_bytes=len(self.input))
        )

    async def WriteInput(
        self, request: pb.WriteInputRequest, context: Context
    ) -> pb.WriteInputResponse:
        """Takes `room` bytes at most, then fails with the next of `later`."""
        await self._note(request, context)
        fresh = request.data[max(0, len(self.input) - request.offset) :]
        self.input += fresh[: self.room]
        if len(fresh) > self.room and self.later:
            await self.later.pop(0)(context)
        return pb.WriteInputResponse(offset=len(self.input))

    async def Attach(
        self, request_iterator: AsyncIterator[pb.AttachRequest], context: Context
    ) -> AsyncIterator[pb.AttachResponse]:
        """Takes no input. Fails with the next of `later`, if there is one."""
        opening = await anext(request_iterator)
        yield pb.AttachResponse(execution=Execution(name=opening.open.name))
        if self.later:
            await self.later.pop(0)(context)
        await asyncio.Event().wait()

    async def Execute(self, request: pb.ExecuteRequest, context: Context) -> pb.ExecuteResponse:
        await self._note(request, context)
        execution = Execution(spec=request.spec, exit=Exit(code=3))
        return pb.ExecuteResponse(execution=execution, stderr=Output(text="no such target\n"))

    async def ReadOutput(
        self, request: pb.ReadOutputRequest, context: Context
    ) -> AsyncIterator[pb.ReadOutputResponse]:
        await self._note(request, context)
        try:
            if self.silent:
                self.silent = False
                await asyncio.Event().wait()
            end = len(self.output)
            offset = request.from_offset if request.from_offset >= 0 else end + request.from_offset
            begin = max(0, offset - self.overlap) + (self.skip if offset else 0)
            for at, each in enumerate(self.previews if offset < end else ()):
                yield pb.ReadOutputResponse(preview=Preview(data=each, position=at + 1))
            while begin < end and offset < end:
                chunks = []
                for _ in range(2 if request.batched and begin // PIECE % 2 else 1):
                    data = self.output[begin : begin + PIECE]
                    chunks.append(Chunk(stream=Chunk.STREAM_STDOUT, offset=begin, data=data))
                    begin += len(data)
                if len(chunks) == 1:
                    yield pb.ReadOutputResponse(chunk=chunks[0])
                else:
                    yield pb.ReadOutputResponse(chunks=Chunks(chunks=chunks))
                if self.fragile:
                    await broken_off(context)
            yield pb.ReadOutputResponse(exit=Exit(code=0))
            await asyncio.sleep(self.lingers)
        finally:
            self.left.set()

    async def ReadFile(
        self, request: pb.ReadFileRequest, context: Context
    ) -> AsyncIterator[pb.ReadFileResponse]:
        await self._note(request, context)
        yield pb.ReadFileResponse(file=File(path=request.path, etag=self.etag))
        end = request.offset + request.limit if request.limit else len(self.output)
        for begin in range(request.offset, end, PIECE):
            yield pb.ReadFileResponse(data=self.output[begin : min(begin + PIECE, end)])
            if self.fragile:
                await broken_off(context)
        yield pb.ReadFileResponse(end=ReadFileEnd())

    async def WriteFile(
        self, request_iterator: AsyncIterator[pb.WriteFileRequest], context: Context
    ) -> pb.WriteFileResponse:
        header, data, end = None, b"", None
        async for request in request_iterator:
            if request.HasField("header"):
                header = request.header
                await self._note(header, context)
            data += request.data
            end = request.end if request.HasField("end") else None
        assert header
        assert end
        assert end.bytes == len(data)
        self.output = data
        return pb.WriteFileResponse(file=File(path=header.path, size=len(data)))

    async def ReadArchive(
        self, request: pb.ReadArchiveRequest, context: Context
    ) -> AsyncIterator[pb.ReadArchiveResponse]:
        """Breaks off once in the midst of it when `fragile`."""
        await self._note(request, context)
        for begin in range(0, len(self.output), 1000):
            yield pb.ReadArchiveResponse(data=self.output[begin : begin + 1000])
            if self.fragile:
                self.fragile = False
                await broken_off(context)
        yield pb.ReadArchiveResponse(end=ArchiveEnd(bytes=len(self.output)))

    async def WriteArchive(
        self, request_iterator: AsyncIterator[pb.WriteArchiveRequest], context: Context
    ) -> pb.WriteArchiveResponse:
        data, end = b"", None
        async for request in request_iterator:
            if request.HasField("header"):
                await self._note(request.header, context)
            data += request.data
            end = request.end if request.HasField("end") else None
        assert end
        assert end.bytes == len(data)
        self.output = data
        return pb.WriteArchiveResponse()

    async def WatchFiles(
        self, request: pb.WatchFilesRequest, context: Context
    ) -> AsyncIterator[pb.WatchFilesResponse]:
        await self._note(request, context)
        yield pb.WatchFilesResponse(started=WatchStarted())
        yield pb.WatchFilesResponse(heartbeat=WatchHeartbeat())
        yield pb.WatchFilesResponse(change=FileChange(path="a"))
        if self.later:
            await self.later.pop(0)(context)
        yield pb.WatchFilesResponse(end=WatchEnd())


def made() -> Gateway:
    """A new one. What it does not do answers UNIMPLEMENTED."""
    return Gateway()  # type: ignore[abstract]


@asynccontextmanager
async def serving(gateway: Gateway, address: str) -> AsyncIterator[None]:
    """Serve at `unix:/path`; on leaving, every call breaks off."""
    server = grpc.aio.server()
    rpc.add_WorkspaceServiceServicer_to_server(gateway, server)
    rpc.add_ExecutionServiceServicer_to_server(gateway, server)
    rpc.add_FileServiceServicer_to_server(gateway, server)
    server.add_insecure_port(address)
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)
