"""gRPC face of FileService: check the request, move the bytes, convert."""

from collections.abc import AsyncIterator

from cove.executor.v1 import executor_pb2 as pb
from cove.executor.v1.executor_pb2_grpc import FileServiceServicer
from servicekit.disk import DiskGuard
from servicekit.errors import InvalidArgument
from servicekit.ledger import Ledger
from servicekit.paging import PageTokens
from servicekit.status import Context
from servicekit.uploads import heard
from services.executor.agents import Agents
from services.executor.errors import FileNotFound, UploadIncomplete
from services.executor.files.archives import Archives
from services.executor.files.convert import file_of, one_of, path_of
from services.executor.files.face_archives import ArchiveFace
from services.executor.files.files import Files, shown
from services.executor.files.watching import Watches
from services.executor.files.writing import Draft, Wish, Writer


class FileServicer(ArchiveFace, FileServiceServicer):
    def __init__(
        self,
        *,
        files: Files,
        writer: Writer,
        archives: Archives,
        watches: Watches,
        agents: Agents,
        ledger: Ledger,
        tokens: PageTokens,
        disk: DiskGuard,
    ) -> None:
        ArchiveFace.__init__(self, archives, watches, agents, ledger, disk)
        self._files = files
        self._writer = writer
        self._agents = agents
        self._ledger = ledger
        self._tokens = tokens

    async def ReadFile(
        self, request: pb.ReadFileRequest, context: Context
    ) -> AsyncIterator[pb.ReadFileResponse]:
        uid, path = await self._agents.in_force(request.handle), path_of(request)
        reading = self._files.reading(uid, path, request.offset, request.limit)
        async with reading as (found, pieces):
            yield pb.ReadFileResponse(file=file_of(found))
            sent = 0
            async for data in pieces:
                yield pb.ReadFileResponse(data=data)
                sent += len(data)
            yield pb.ReadFileResponse(end=pb.ReadFileEnd(bytes=sent))

    async def WriteFile(
        self, requests: AsyncIterator[pb.WriteFileRequest], context: Context
    ) -> pb.WriteFileResponse:
        async with heard(requests):
            return await self._write(requests)

    async def _write(self, requests: AsyncIterator[pb.WriteFileRequest]) -> pb.WriteFileResponse:
        header = await _header(requests)
        self._disk.check()
        wish = Wish(
            uid=await self._agents.in_force(header.handle),
            path=path_of(header),
            mode=header.mode,
            etag=header.etag,
            must_not_exist=header.must_not_exist,
            make_parents=header.make_parents,
        )
        async with self._writer.writing(wish) as draft:
            await _receive(requests, draft, shown(wish.path))

            async def commit() -> pb.WriteFileResponse:
                return pb.WriteFileResponse(file=file_of(await draft.commit()))

            header.etag = f"{header.etag}:{draft.digest}"  # The ledger compares the content too.
            return await draft.finish(
                self._ledger.once(self._agents.settled(header), pb.WriteFileResponse, commit)
            )

    async def StatFile(self, request: pb.StatFileRequest, context: Context) -> pb.StatFileResponse:
        uid, path = await self._agents.in_force(request.handle), path_of(request, root=True)
        return pb.StatFileResponse(file=file_of(await self._files.stat(uid, path)))

    async def ListFiles(
        self, request: pb.ListFilesRequest, context: Context
    ) -> pb.ListFilesResponse:
        uid, path = await self._agents.in_force(request.handle), path_of(request, root=True)
        page = self._tokens.page(request, default=1000, maximum=10_000)
        after = bytes.fromhex(page.after)
        found = await self._files.listing(uid, path, after, page.size + 1)
        answer = pb.ListFilesResponse(
            files=map(file_of, found[: page.size]),
            page_size=page.size,
        )
        if len(found) > page.size:
            name = found[page.size - 1].path.rpartition(b"/")[2]
            answer.next_page_token = self._tokens.next(request, after=name.hex())
        return answer

    async def MakeDirectory(
        self, request: pb.MakeDirectoryRequest, context: Context
    ) -> pb.MakeDirectoryResponse:
        uid, path = await self._agents.in_force(request.handle), path_of(request)

        async def make() -> pb.MakeDirectoryResponse:
            made = await self._files.make_directory(uid, path, parents=request.make_parents)
            return pb.MakeDirectoryResponse(file=file_of(made))

        return await self._ledger.once(
            self._agents.settled(request), pb.MakeDirectoryResponse, make
        )

    async def RemoveFile(
        self, request: pb.RemoveFileRequest, context: Context
    ) -> pb.RemoveFileResponse:
        uid, path = await self._agents.in_force(request.handle), path_of(request)

        async def remove() -> pb.RemoveFileResponse:
            try:
                await self._files.remove(uid, path, recursive=request.recursive, etag=request.etag)
            except FileNotFound:
                if not request.allow_missing:
                    raise
            return pb.RemoveFileResponse()

        return await self._ledger.once(self._agents.settled(request), pb.RemoveFileResponse, remove)

    async def MoveFile(self, request: pb.MoveFileRequest, context: Context) -> pb.MoveFileResponse:
        uid, path = await self._agents.in_force(request.handle), path_of(request)
        target = one_of("new_path", request.new_path, request.raw_new_path)

        async def move() -> pb.MoveFileResponse:
            moved = await self._files.move(uid, path, target, overwrite=request.overwrite)
            return pb.MoveFileResponse(file=file_of(moved))

        return await self._ledger.once(self._agents.settled(request), pb.MoveFileResponse, move)


async def _header(requests: AsyncIterator[pb.WriteFileRequest]) -> pb.WriteFileHeader:
    async for request in requests:
        if request.HasField("header"):
            return request.header
        break
    raise InvalidArgument("header", "the first message must be the header")


async def _receive(requests: AsyncIterator[pb.WriteFileRequest], draft: Draft, path: str) -> None:
    """Take content up to its end. A stream that merely stops may be that of a dead caller."""
    async for request in requests:
        match request.WhichOneof("part"):
            case "data":
                await draft.write(request.data)
            case "end" if request.end.bytes == draft.size:
                return
            case "end":
                raise _incomplete("not all of the content came", path, draft)
            case _:
                raise InvalidArgument("header", "only the first message is a header")
    raise _incomplete("the stream stopped without its end", path, draft)


def _incomplete(message: str, path: str, draft: Draft) -> UploadIncomplete:
    return UploadIncomplete(message, path=path, received=str(draft.size))
