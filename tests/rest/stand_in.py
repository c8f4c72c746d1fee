"""A gateway that answers from memory, behind the real kit: socket, interceptors, validation.

It proves what HTTP makes of requests, answers and failures. It cannot prove that the
real gateway answers so: tests of the whole suite do that.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1 import gateway_pb2_grpc as rpc
from cove.git.v1 import git_pb2
from cove.options.v1.options_pb2 import Role
from servicekit import calls, errors
from servicekit.config import ServerConfig
from servicekit.identity import Caller, Identity

TOKEN = "a-token"
CHUNK = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ServerConfig):
    service: ClassVar[str] = "gateway"


class Bearer:
    async def authenticate(self, caller: Caller) -> Identity:
        if caller.metadata.get("authorization") != f"Bearer {TOKEN}":
            raise errors.Unauthenticated("no valid token")
        return Identity("admin", "default", Role.ROLE_ADMIN)


class WorkspaceNotFound(errors.NotFound):
    reason = ErrorReason.ERROR_REASON_WORKSPACE_NOT_FOUND


class WorkspaceExists(errors.AlreadyExists):
    reason = ErrorReason.ERROR_REASON_WORKSPACE_EXISTS


class EtagMismatch(errors.Aborted):
    reason = ErrorReason.ERROR_REASON_ETAG_MISMATCH


class FileNotFound(errors.NotFound):
    reason = ErrorReason.ERROR_REASON_FILE_NOT_FOUND


class FileExists(errors.AlreadyExists):
    reason = ErrorReason.ERROR_REASON_FILE_EXISTS


class FileChanged(errors.Aborted):
    reason = ErrorReason.ERROR_REASON_FILE_CHANGED


class UploadIncomplete(errors.Aborted):
    reason = ErrorReason.ERROR_REASON_UPLOAD_INCOMPLETE


class ArchiveInvalid(errors.InvalidArgument):
    reason = ErrorReason.ERROR_REASON_ARCHIVE_INVALID


class WrongFileType(errors.FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_WRONG_FILE_TYPE


class OffsetOutOfRange(errors.OutOfRange):
    reason = ErrorReason.ERROR_REASON_OFFSET_OUT_OF_RANGE


class DiskFull(errors.ResourceExhausted):
    reason = ErrorReason.ERROR_REASON_DISK_FULL


class InputHeld(errors.FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_INPUT_HELD


class MergeConflict(errors.FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_MERGE_CONFLICT


class NonFastForward(errors.FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_NON_FAST_FORWARD


class Seen:
    """What reached the stand-in, and what became of its streams."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.correlation_ids: list[str] = []
        self.cancelled = asyncio.Event()
        self.refused = asyncio.Event()
        self.chunks_sent = 0

    async def held_up(self) -> None:
        """Return when no more chunks are sent."""
        before = -1
        while before != self.chunks_sent:
            before = self.chunks_sent
            await asyncio.sleep(0.3)

    def note(self, request: Any) -> None:
        self.requests.append(request)
        self.correlation_ids.append(calls.current().correlation_id)


class Workspaces(rpc.WorkspaceServiceServicer):
    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._kept: dict[str, pb.Workspace] = {}

    async def CreateWorkspace(self, request: Any, context: Any) -> pb.CreateWorkspaceResponse:
        self._seen.note(request)
        name = f"workspaces/{request.workspace_id}"
        if name in self._kept:
            raise WorkspaceExists("the id is taken", name=name)
        made = pb.Workspace(name=name, etag="1", state=pb.Workspace.STATE_READY)
        made.spec.CopyFrom(request.workspace.spec)
        made.labels.update(request.workspace.labels)
        self._kept[name] = made
        return pb.CreateWorkspaceResponse(workspace=made)

    async def GetWorkspace(self, request: Any, context: Any) -> pb.GetWorkspaceResponse:
        self._seen.note(request)
        return pb.GetWorkspaceResponse(workspace=self._get(request.name))

    async def ListWorkspaces(self, request: Any, context: Any) -> pb.ListWorkspacesResponse:
        self._seen.note(request)
        return pb.ListWorkspacesResponse(workspaces=self._kept.values())

    async def UpdateWorkspace(self, request: Any, context: Any) -> pb.UpdateWorkspaceResponse:
        self._seen.note(request)
        kept = self._get(request.workspace.name)
        if request.workspace.etag not in ("", kept.etag):
            raise EtagMismatch("it was changed", name=kept.name)
        kept.labels.update(request.workspace.labels)
        kept.etag = str(int(kept.etag) + 1)
        return pb.UpdateWorkspaceResponse(workspace=kept)

    async def DeleteWorkspace(self, request: Any, context: Any) -> pb.DeleteWorkspaceResponse:
        self._seen.note(request)
        if request.etag not in ("", self._get(request.name).etag):
            raise EtagMismatch("it was changed", name=request.name)
        del self._kept[request.name]
        return pb.DeleteWorkspaceResponse()

    async def WatchWorkspaces(
        self, request: Any, context: Any
    ) -> AsyncIterator[pb.WatchWorkspacesResponse]:
        """A snapshot at revision 4, a change, a heartbeat; then nothing."""
        self._seen.note(request)
        watched = pb.WatchWorkspacesResponse
        demo = pb.Workspace(name="workspaces/demo")
        if not request.from_revision:
            yield watched(snapshot=demo)
            yield watched(snapshot_end=watched.SnapshotEnd(revision=4))
        yield watched(put=watched.Put(workspace=demo, revision=5))
        yield watched(delete=watched.Delete(name=demo.name, revision=6))
        yield watched(heartbeat=watched.Heartbeat(revision=9))
        try:
            await asyncio.Event().wait()
        finally:
            self._seen.cancelled.set()

    async def GetCapabilities(self, request: Any, context: Any) -> pb.GetCapabilitiesResponse:
        raise RuntimeError("a secret of the inside")

    def _get(self, name: str) -> pb.Workspace:
        if name not in self._kept:
            raise WorkspaceNotFound("no such workspace", name=name)
        return self._kept[name]


class Executions(rpc.ExecutionServiceServicer):
    """The id of an execution says how its output goes."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    async def StartExecution(self, request: Any, context: Any) -> pb.StartExecutionResponse:
        self._seen.note(request)
        name = f"{request.parent}/executions/{request.execution_id}"
        return pb.StartExecutionResponse(execution=executor_pb2.Execution(name=name, etag="r"))

    async def Execute(self, request: Any, context: Any) -> pb.ExecuteResponse:
        self._seen.note(request)
        response = pb.ExecuteResponse()
        response.execution.exit.code = 0
        response.stdout.text = "hi\n"
        response.stderr.text = ""
        return response

    async def StreamExecution(
        self, request: Any, context: Any
    ) -> AsyncIterator[pb.StreamExecutionResponse]:
        self._seen.note(request)
        name = f"{request.name}/executions/x"
        yield pb.StreamExecutionResponse(execution=executor_pb2.Execution(name=name))
        yield pb.StreamExecutionResponse(chunk=chunk(0, b"hi\n"))
        yield pb.StreamExecutionResponse(exit=executor_pb2.Exit(code=0, output_bytes=3))

    async def WaitExecution(self, request: Any, context: Any) -> pb.WaitExecutionResponse:
        self._seen.note(request)
        try:
            await asyncio.Event().wait()
        finally:
            self._seen.cancelled.set()
        raise AssertionError

    async def SignalExecution(self, request: Any, context: Any) -> pb.SignalExecutionResponse:
        self._seen.note(request)
        return pb.SignalExecutionResponse()

    async def WriteInput(self, request: Any, context: Any) -> pb.WriteInputResponse:
        self._seen.note(request)
        if request.name.endswith("/held"):
            raise InputHeld("another writer holds the input", name=request.name)
        return pb.WriteInputResponse(
            offset=request.offset + len(request.data), closed=request.close
        )

    async def ResizeTerminal(self, request: Any, context: Any) -> pb.ResizeTerminalResponse:
        self._seen.note(request)
        return pb.ResizeTerminalResponse()

    async def Attach(
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[pb.AttachResponse]:
        """Echoes what is typed, from the seventh byte on."""
        first = await anext(requests)
        self._seen.note(first)
        if first.open.name.endswith("/held"):
            raise InputHeld("another writer holds the input", name=first.open.name)
        named = executor_pb2.Execution(name=first.open.name, input_bytes=7)
        yield pb.AttachResponse(execution=named)
        try:
            if first.open.name.endswith("/flood"):
                async for event in self._flood():
                    yield pb.AttachResponse(chunk=event.chunk)
            async for request in requests:
                if request.HasField("resize"):
                    size = f"{request.resize.rows}x{request.resize.cols}".encode()
                    yield pb.AttachResponse(chunk=chunk(0, size))
                elif request.input.close:
                    yield pb.AttachResponse(exit=executor_pb2.Exit(code=0))
                    return
                else:
                    yield pb.AttachResponse(chunk=chunk(0, request.input.data))
                    offset = 7 + len(request.input.data)
                    yield pb.AttachResponse(input=pb.AttachResponse.InputState(offset=offset))
        finally:
            self._seen.cancelled.set()

    async def ReadOutput(self, request: Any, context: Any) -> AsyncIterator[pb.ReadOutputResponse]:
        self._seen.note(request)
        kind = request.name.rpartition("/")[2]
        if kind == "unknown":
            raise WorkspaceNotFound("no such thing", name=request.name)
        if kind == "flood":
            async for event in self._flood():
                yield event
        output = b"" if kind == "silent" else b"one\ntwo\n"
        if rest := output[request.from_offset :]:
            parts = [
                chunk(at, rest[at - request.from_offset :][:4])
                for at in range(request.from_offset, len(output), 4)
            ]
            if request.batched:
                yield pb.ReadOutputResponse(chunks=executor_pb2.Chunks(chunks=parts))
            else:
                yield pb.ReadOutputResponse(chunk=chunk(request.from_offset, rest))
        if kind == "breaks":
            raise errors.Unavailable("the executor went away", service="executor")
        if kind == "running":
            try:
                yield pb.ReadOutputResponse(heartbeat=executor_pb2.Heartbeat(offset=len(output)))
                await asyncio.Event().wait()
            finally:
                self._seen.cancelled.set()
        yield pb.ReadOutputResponse(exit=executor_pb2.Exit(code=0, output_bytes=len(output)))

    async def _flood(self) -> AsyncIterator[pb.ReadOutputResponse]:
        try:
            while True:
                offset = self._seen.chunks_sent * CHUNK
                yield pb.ReadOutputResponse(chunk=chunk(offset, bytes(CHUNK)))
                self._seen.chunks_sent += 1
        finally:
            self._seen.cancelled.set()


class Files(rpc.FileServiceServicer):
    """`/` at the end of a path of `content` makes it a directory."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self.content: dict[bytes, bytes] = {}

    async def ReadFile(self, request: Any, context: Any) -> AsyncIterator[pb.ReadFileResponse]:
        self._seen.note(request)
        path = path_of(request)
        if path == b"replaced":  # Anew by each read.
            self.content[path] += b"!"
        if path + b"/" in self.content:
            raise WrongFileType("not a regular file", path=request.path)
        data = self._get(path)
        if request.offset > len(data):
            raise OffsetOutOfRange("beyond the end", end=str(len(data)))
        yield pb.ReadFileResponse(file=file(path, data))
        if path == b"broken":
            yield pb.ReadFileResponse(data=data[:1])
            raise errors.Unavailable("the executor went away", service="executor")
        end = request.offset + request.limit if request.limit else len(data)
        for at in range(request.offset, min(end, len(data)), CHUNK):
            yield pb.ReadFileResponse(data=data[at : min(at + CHUNK, end)])
        yield pb.ReadFileResponse(end=executor_pb2.ReadFileEnd())

    async def WriteFile(self, requests: Any, context: Any) -> pb.WriteFileResponse:
        header, data, size = None, b"", -1
        try:
            async for request in requests:
                match request.WhichOneof("part"):
                    case "data":
                        data += request.data
                    case "end":
                        size = request.end.bytes
                    case _ if header is None:
                        header = request.header
                        self._seen.note(header)
                        self._check(header)
                    case _:
                        raise errors.InvalidArgument("header", "only the first is a header")
            if size != len(data):
                raise UploadIncomplete("the stream stopped without its end")
        finally:
            if size != len(data):
                self._seen.refused.set()
        assert header is not None
        self.content[path_of(header)] = data
        return pb.WriteFileResponse(file=file(path_of(header), data))

    async def ReadArchive(
        self, request: Any, context: Any
    ) -> AsyncIterator[pb.ReadArchiveResponse]:
        self._seen.note(request)
        data = self._get(path_of(request))
        for at in range(0, len(data), CHUNK):
            yield pb.ReadArchiveResponse(data=data[at : at + CHUNK])
        if path_of(request) == b"broken":
            raise errors.Unavailable("the executor went away", service="executor")
        yield pb.ReadArchiveResponse(end=executor_pb2.ArchiveEnd(bytes=len(data)))

    async def WriteArchive(self, requests: Any, context: Any) -> pb.WriteArchiveResponse:
        header, data, size = None, b"", -1
        try:
            async for request in requests:
                match request.WhichOneof("part"):
                    case "data":
                        data += request.data
                    case "end":
                        size = request.end.bytes
                    case _ if header is None:
                        header = request.header
                        self._seen.note(header)
                    case _:
                        raise errors.InvalidArgument("header", "only the first is a header")
            if header is None or size != len(data):
                raise UploadIncomplete("the stream stopped without its end")
        finally:
            if size != len(data):
                self._seen.refused.set()
        if data == b"hostile":
            raise ArchiveInvalid("data", "a path that leads out", path="../x")
        self.content[path_of(header)] = data
        return pb.WriteArchiveResponse(unpacked=executor_pb2.Unpacked(entries=1, bytes=size))

    async def WatchFiles(self, request: Any, context: Any) -> AsyncIterator[pb.WatchFilesResponse]:
        self._seen.note(request)
        kind = executor_pb2.FileChange.KIND_CREATED
        yield pb.WatchFilesResponse(started=executor_pb2.WatchStarted())
        yield pb.WatchFilesResponse(change=executor_pb2.FileChange(kind=kind, raw_path=b"\xff"))
        yield pb.WatchFilesResponse(overflow=executor_pb2.WatchOverflow())
        yield pb.WatchFilesResponse(heartbeat=executor_pb2.WatchHeartbeat())
        yield pb.WatchFilesResponse(end=executor_pb2.WatchEnd())

    async def ListFiles(self, request: Any, context: Any) -> pb.ListFilesResponse:
        self._seen.note(request)
        files = [file(path, data) for path, data in sorted(self.content.items())]
        return pb.ListFilesResponse(files=files)

    async def RemoveFile(self, request: Any, context: Any) -> pb.RemoveFileResponse:
        self._seen.note(request)
        self._check(request)
        del self.content[path_of(request)]
        return pb.RemoveFileResponse()

    async def StatFile(self, request: Any, context: Any) -> pb.StatFileResponse:
        self._seen.note(request)
        return pb.StatFileResponse(file=file(path_of(request), self._get(path_of(request))))

    def _check(self, wanted: Any) -> None:
        path = path_of(wanted)
        if getattr(wanted, "must_not_exist", False) and path in self.content:
            raise FileExists("one is there", path=wanted.path)
        if wanted.etag and wanted.etag != etag_of(self._get(path)):
            raise FileChanged("it was changed", path=wanted.path)

    def _get(self, path: bytes) -> bytes:
        if path not in self.content:
            raise FileNotFound("nothing is there", path=path.decode(errors="replace"))
        return self.content[path]


class Sources(rpc.SourceServiceServicer):
    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    async def GetWorktreeStatus(self, request: Any, context: Any) -> pb.GetWorktreeStatusResponse:
        raise DiskFull("the disk is full")

    async def GetDiff(self, request: Any, context: Any) -> AsyncIterator[pb.GetDiffResponse]:
        self._seen.note(request)
        yield pb.GetDiffResponse(file=git_pb2.DiffFile(path="a"))
        yield pb.GetDiffResponse(end=git_pb2.DiffEnd())

    async def CreateCommit(self, request: Any, context: Any) -> pb.CreateCommitResponse:
        self._seen.note(request)
        return pb.CreateCommitResponse(commit=request.commit)

    async def ListBranches(self, request: Any, context: Any) -> pb.ListBranchesResponse:
        raise errors.Unavailable("git is away", service="git")

    async def PushBranch(self, request: Any, context: Any) -> pb.PushBranchResponse:
        self._seen.note(request)
        raise NonFastForward("the remote has more", branch="main")

    async def PreviewMerge(self, request: Any, context: Any) -> pb.PreviewMergeResponse:
        self._seen.note(request)
        conflict = git_pb2.MergeConflict(
            raw_path=b"\xff", kind=git_pb2.MergeConflict.KIND_MODIFY_DELETE
        )
        return pb.PreviewMergeResponse(preview=git_pb2.MergePreview(conflicts=[conflict]))

    async def MergeBranch(self, request: Any, context: Any) -> pb.MergeBranchResponse:
        self._seen.note(request)
        raise MergeConflict("both changed the same", total="1", conflicts="[]")


def services(seen: Seen, files: Files) -> Mapping[str, Any]:
    # Checkers want every RPC; those that no test asks for answer UNIMPLEMENTED.
    return {
        "cove.gateway.v1.WorkspaceService": partial(
            rpc.add_WorkspaceServiceServicer_to_server,
            Workspaces(seen),  # type: ignore[abstract]
        ),
        "cove.gateway.v1.ExecutionService": partial(
            rpc.add_ExecutionServiceServicer_to_server,
            Executions(seen),  # type: ignore[abstract]
        ),
        "cove.gateway.v1.FileService": partial(rpc.add_FileServiceServicer_to_server, files),
        "cove.gateway.v1.SourceService": partial(
            rpc.add_SourceServiceServicer_to_server,
            Sources(seen),  # type: ignore[abstract]
        ),
        "cove.gateway.v1.AccessService": partial(
            rpc.add_AccessServiceServicer_to_server,
            rpc.AccessServiceServicer(),  # type: ignore[abstract]
        ),
        "cove.gateway.v1.AuditService": partial(
            rpc.add_AuditServiceServicer_to_server,
            rpc.AuditServiceServicer(),  # type: ignore[abstract]
        ),
    }


def chunk(offset: int, data: bytes) -> executor_pb2.Chunk:
    return executor_pb2.Chunk(stream=executor_pb2.Chunk.STREAM_STDOUT, offset=offset, data=data)


def file(path: bytes, data: bytes) -> executor_pb2.File:
    return executor_pb2.File(
        path=path.decode(errors="ignore"),
        kind=executor_pb2.File.KIND_FILE,
        size=len(data),
        etag=etag_of(data),
    )


def etag_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def path_of(request: Any) -> bytes:
    return bytes(request.raw_path or request.path.encode())
