"""FileService: the executor's RPCs on files, on workspaces."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from cove.executor.v1 import executor_pb2
from cove.executor.v1.executor_pb2_grpc import FileServiceStub
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import FileServiceServicer
from cove.registry.v1.registry_pb2 import Environment
from gateway import names
from gateway.handles import Handles
from gateway.ready import Workspaces, in_words_of
from gateway.tools import Tools
from servicekit.errors import InvalidArgument
from servicekit.status import Context
from servicekit.uploads import heard


class FileServicer(FileServiceServicer):
    def __init__(self, tools: Tools, workspaces: Workspaces, handles: Handles) -> None:
        self._handles = handles
        self._files = tools.files
        self._workspaces = workspaces

    @property
    def _rpc(self) -> FileServiceStub:
        return self._files.rpc

    async def ReadFile(
        self, request: pb.ReadFileRequest, context: Context
    ) -> AsyncIterator[pb.ReadFileResponse]:
        environment = await self._workspaces.ready(request.name)
        asked = executor_pb2.ReadFileRequest(
            handle=environment.handle,
            path=request.path,
            raw_path=request.raw_path,
            offset=request.offset,
            limit=request.limit,
        )
        events = self._workspaces.awake_stream(
            environment, asked, lambda: self._files.stream(self._rpc.ReadFile, asked)
        )
        with in_words_of(environment):
            async with aclosing(events):
                async for event in events:
                    if kind := event.WhichOneof("event"):
                        yield pb.ReadFileResponse(**{kind: getattr(event, kind)})

    async def WriteFile(
        self, request_iterator: AsyncIterator[pb.WriteFileRequest], context: Context
    ) -> pb.WriteFileResponse:
        async with heard(request_iterator):
            first = await anext(request_iterator, None)
            if first is None or not first.HasField("header"):
                raise InvalidArgument("header", "must be the first message")
            environment = await self._workspaces.ready(first.header.name)
            # Before, not on refusal: what the caller sent cannot be sent a second time.
            await self._roused(environment)
        header = executor_pb2.WriteFileHeader(
            handle=environment.handle,
            path=first.header.path,
            raw_path=first.header.raw_path,
            mode=first.header.mode,
            etag=first.header.etag,
            must_not_exist=first.header.must_not_exist,
            make_parents=first.header.make_parents,
            request_id=names.derived(first.header.request_id, "WriteFile"),
        )

        async def parts() -> AsyncIterator[executor_pb2.WriteFileRequest]:
            # What comes is passed on as it is: the executor refuses a second header, and
            # an upload that stops without its end.
            yield executor_pb2.WriteFileRequest(header=header)
            async for part in request_iterator:
                match part.WhichOneof("part"):
                    case "data":
                        yield executor_pb2.WriteFileRequest(data=part.data)
                    case "end":
                        yield executor_pb2.WriteFileRequest(end=part.end)
                    case _:
                        yield executor_pb2.WriteFileRequest(header=header)

        with in_words_of(environment, header, first.header):
            answer = await self._files.upload(self._rpc.WriteFile, parts())
        await self._handles.follow(environment, [answer])
        return pb.WriteFileResponse(file=answer.file)

    async def ReadArchive(
        self, request: pb.ReadArchiveRequest, context: Context
    ) -> AsyncIterator[pb.ReadArchiveResponse]:
        environment = await self._workspaces.ready(request.name)
        asked = executor_pb2.ReadArchiveRequest(
            handle=environment.handle, path=request.path, raw_path=request.raw_path
        )
        events = self._workspaces.awake_stream(
            environment, asked, lambda: self._files.stream(self._rpc.ReadArchive, asked)
        )
        with in_words_of(environment):
            async with aclosing(events):
                async for event in events:
                    if kind := event.WhichOneof("event"):
                        yield pb.ReadArchiveResponse(**{kind: getattr(event, kind)})

    async def WriteArchive(
        self, request_iterator: AsyncIterator[pb.WriteArchiveRequest], context: Context
    ) -> pb.WriteArchiveResponse:
        async with heard(request_iterator):
            first = await anext(request_iterator, None)
            if first is None or not first.HasField("header"):
                raise InvalidArgument("header", "must be the first message")
            environment = await self._workspaces.ready(first.header.name)
            # Before, not on refusal: what the caller sent cannot be sent a second time.
            await self._roused(environment)
        header = executor_pb2.WriteArchiveHeader(
            handle=environment.handle,
            path=first.header.path,
            raw_path=first.header.raw_path,
            make_parents=first.header.make_parents,
            request_id=names.derived(first.header.request_id, "WriteArchive"),
        )

        async def parts() -> AsyncIterator[executor_pb2.WriteArchiveRequest]:
            yield executor_pb2.WriteArchiveRequest(header=header)
            async for part in request_iterator:
                match part.WhichOneof("part"):
                    case "data":
                        yield executor_pb2.WriteArchiveRequest(data=part.data)
                    case "end":
                        yield executor_pb2.WriteArchiveRequest(end=part.end)
                    case _:
                        yield executor_pb2.WriteArchiveRequest(header=header)

        with in_words_of(environment, header, first.header):
            answer = await self._files.upload(self._rpc.WriteArchive, parts())
        await self._handles.follow(environment, [answer])
        return pb.WriteArchiveResponse(unpacked=answer.unpacked)

    async def WatchFiles(
        self, request: pb.WatchFilesRequest, context: Context
    ) -> AsyncIterator[pb.WatchFilesResponse]:
        environment = await self._workspaces.ready(request.name)
        asked = executor_pb2.WatchFilesRequest(
            handle=environment.handle, path=request.path, raw_path=request.raw_path
        )
        events = self._workspaces.awake_stream(
            environment, asked, lambda: self._files.stream(self._rpc.WatchFiles, asked)
        )
        with in_words_of(environment):
            async with aclosing(events):
                async for event in events:
                    if kind := event.WhichOneof("event"):
                        yield pb.WatchFilesResponse(**{kind: getattr(event, kind)})

    async def StatFile(self, request: pb.StatFileRequest, context: Context) -> pb.StatFileResponse:
        environment = await self._workspaces.ready(request.name)
        asked = executor_pb2.StatFileRequest(
            handle=environment.handle, path=request.path, raw_path=request.raw_path
        )
        with in_words_of(environment):
            answer = await self._workspaces.awake(
                environment, asked, lambda: self._files.unary(self._rpc.StatFile, asked)
            )
        return pb.StatFileResponse(file=answer.file)

    async def ListFiles(
        self, request: pb.ListFilesRequest, context: Context
    ) -> pb.ListFilesResponse:
        environment = await self._workspaces.ready(request.name)
        asked = executor_pb2.ListFilesRequest(
            handle=environment.handle,
            path=request.path,
            raw_path=request.raw_path,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        with in_words_of(environment):
            answer = await self._workspaces.awake(
                environment, asked, lambda: self._files.unary(self._rpc.ListFiles, asked)
            )
        return pb.ListFilesResponse(
            files=answer.files,
            next_page_token=answer.next_page_token,
            page_size=answer.page_size,
        )

    async def MakeDirectory(
        self, request: pb.MakeDirectoryRequest, context: Context
    ) -> pb.MakeDirectoryResponse:
        environment = await self._workspaces.ready(request.name)
        asked = executor_pb2.MakeDirectoryRequest(
            handle=environment.handle,
            path=request.path,
            raw_path=request.raw_path,
            make_parents=request.make_parents,
            request_id=names.derived(request.request_id, "MakeDirectory"),
        )
        with in_words_of(environment, asked, request):
            answer = await self._workspaces.awake(
                environment, asked, lambda: self._files.unary(self._rpc.MakeDirectory, asked)
            )
        await self._handles.follow(environment, [answer])
        return pb.MakeDirectoryResponse(file=answer.file)

    async def RemoveFile(
        self, request: pb.RemoveFileRequest, context: Context
    ) -> pb.RemoveFileResponse:
        environment = await self._workspaces.ready(request.name)
        asked = executor_pb2.RemoveFileRequest(
            handle=environment.handle,
            path=request.path,
            raw_path=request.raw_path,
            recursive=request.recursive,
            allow_missing=request.allow_missing,
            etag=request.etag,
            request_id=names.derived(request.request_id, "RemoveFile"),
        )
        with in_words_of(environment, asked, request):
            answer = await self._workspaces.awake(
                environment, asked, lambda: self._files.unary(self._rpc.RemoveFile, asked)
            )
        await self._handles.follow(environment, [answer])
        return pb.RemoveFileResponse()

    async def MoveFile(self, request: pb.MoveFileRequest, context: Context) -> pb.MoveFileResponse:
        environment = await self._workspaces.ready(request.name)
        asked = executor_pb2.MoveFileRequest(
            handle=environment.handle,
            path=request.path,
            raw_path=request.raw_path,
            new_path=request.new_path,
            raw_new_path=request.raw_new_path,
            overwrite=request.overwrite,
            request_id=names.derived(request.request_id, "MoveFile"),
        )
        with in_words_of(environment, asked, request):
            answer = await self._workspaces.awake(
                environment, asked, lambda: self._files.unary(self._rpc.MoveFile, asked)
            )
        await self._handles.follow(environment, [answer])
        return pb.MoveFileResponse(file=answer.file)

    async def _roused(self, environment: Environment) -> None:
        """Have its sandbox started. It is asked for something small: to ask the provider each time
        would have every upload wait behind the sandboxes that are started."""
        asked = executor_pb2.StatFileRequest(handle=environment.handle, path=".")
        with in_words_of(environment):
            await self._workspaces.awake(
                environment, asked, lambda: self._files.unary(self._rpc.StatFile, asked)
            )
