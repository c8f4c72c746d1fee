"""RPCs that send commits to another node, and take them in there."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from cove.git.v1 import git_pb2 as pb
from servicekit.errors import InvalidArgument
from servicekit.status import Context
from services.git.errors import UploadIncomplete
from services.git.face import Face, tenant
from services.git.wanted import Wanted


class ReplicasFace(Face):
    async def ExportCommits(
        self, request: pb.ExportCommitsRequest, context: Context
    ) -> AsyncGenerator[pb.ExportCommitsResponse, None]:
        export = await self._replicas.export(request.uid, tenant(), request.commit, request.have)
        yield pb.ExportCommitsResponse(
            header=pb.ExportedCommits(commit=export.commit, prerequisites=export.prerequisites)
        )
        size = 0
        async with aclosing(self._replicas.pack(export)) as pieces:
            async for piece in pieces:
                size += len(piece)
                yield pb.ExportCommitsResponse(data=piece)
        yield pb.ExportCommitsResponse(end=pb.PackEnd(bytes=size))

    async def ImportCommits(
        self, requests: AsyncIterator[pb.ImportCommitsRequest], context: Context
    ) -> pb.ImportCommitsResponse:
        header = await _header(requests)
        wanted = Wanted(
            uid=header.uid,
            repository=header.repository,
            revision=header.revision,
            branch="",
            depth=header.depth,
            filter=header.filter,
        )

        async def keep() -> pb.ImportCommitsResponse:
            kept = await self._replicas.keep(
                wanted, tenant(), header.commit, header.prerequisites, _pieces(requests)
            )
            return pb.ImportCommitsResponse(commit=kept)

        return await self._fences.guard(header.uid, keep)


async def _header(requests: AsyncIterator[pb.ImportCommitsRequest]) -> pb.ImportCommitsHeader:
    async for request in requests:
        if request.HasField("header"):
            return request.header
        break
    raise InvalidArgument("header", "the first message must be the header")


async def _pieces(requests: AsyncIterator[pb.ImportCommitsRequest]) -> AsyncIterator[bytes]:
    """What comes, up to its end. A stream that merely stops may be that of a dead sender."""
    size = 0
    async for request in requests:
        match request.WhichOneof("part"):
            case "data":
                size += len(request.data)
                yield request.data
            case "end" if request.end.bytes == size:
                return
            case "end":
                raise UploadIncomplete("not all of the pack came", received=str(size))
            case _:
                raise InvalidArgument("header", "only the first message is a header")
    raise UploadIncomplete("the stream stopped without its end", received=str(size))
