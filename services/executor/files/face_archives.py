"""gRPC face of archives and watches."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

from agent import frames
from cove.executor.v1 import executor_pb2 as pb
from servicekit.disk import DiskGuard
from servicekit.errors import InvalidArgument
from servicekit.ledger import Ledger
from servicekit.status import Context
from servicekit.uploads import heard
from services.executor.agents import Agents
from services.executor.errors import UploadIncomplete
from services.executor.files.archives import Archives, Counted, Incoming, Target
from services.executor.files.convert import path_of, text_of
from services.executor.files.files import shown
from services.executor.files.watching import Beat, Changed, Event, Started, Watches

_KINDS: Final = {
    frames.CREATED: pb.FileChange.KIND_CREATED,
    frames.MODIFIED: pb.FileChange.KIND_MODIFIED,
    frames.REMOVED: pb.FileChange.KIND_REMOVED,
    frames.MOVED: pb.FileChange.KIND_MOVED,
}


class ArchiveFace:
    """The part of FileService that has helpers do the work."""

    def __init__(
        self,
        archives: Archives,
        watches: Watches,
        agents: Agents,
        ledger: Ledger,
        disk: DiskGuard,
    ) -> None:
        self._archives = archives
        self._disk = disk
        self._watches = watches
        self._agents = agents
        self._ledger = ledger

    async def ReadArchive(
        self, request: pb.ReadArchiveRequest, context: Context
    ) -> AsyncIterator[pb.ReadArchiveResponse]:
        uid, path = await self._agents.in_force(request.handle), path_of(request, root=True)
        async with self._archives.reading(uid, path) as archive:
            async with aclosing(archive.pieces()) as pieces:
                async for data in pieces:
                    yield pb.ReadArchiveResponse(data=data)
            found = await archive.end()
            end = pb.ArchiveEnd(bytes=archive.bytes, entries=found.entries, skipped=found.other)
            yield pb.ReadArchiveResponse(end=end)

    async def WriteArchive(
        self, requests: AsyncIterator[pb.WriteArchiveRequest], context: Context
    ) -> pb.WriteArchiveResponse:
        async with heard(requests):
            return await self._unpack(requests)

    async def _unpack(
        self, requests: AsyncIterator[pb.WriteArchiveRequest]
    ) -> pb.WriteArchiveResponse:
        header = await _header(requests)
        self._disk.check()
        target = Target(
            uid=await self._agents.in_force(header.handle),
            path=path_of(header, root=True),
            make_parents=header.make_parents,
        )
        async with self._archives.writing(target) as incoming:
            await _receive(requests, incoming)
            await incoming.staged()

            async def commit() -> pb.WriteArchiveResponse:
                return pb.WriteArchiveResponse(unpacked=_unpacked(await incoming.commit()))

            # The ledger compares the content too; no path holds a NUL.
            header.raw_path = target.path + b"\0" + incoming.digest.encode()
            once = self._ledger.once(self._agents.settled(header), pb.WriteArchiveResponse, commit)
            return await self._archives.finish(incoming, once)

    async def WatchFiles(
        self, request: pb.WatchFilesRequest, context: Context
    ) -> AsyncIterator[pb.WatchFilesResponse]:
        uid, path = await self._agents.in_force(request.handle), path_of(request, root=True)
        async with aclosing(self._watches.watch(uid, path)) as events:
            async for event in events:
                yield _event(event)


async def _header(requests: AsyncIterator[pb.WriteArchiveRequest]) -> pb.WriteArchiveHeader:
    async for request in requests:
        if request.HasField("header"):
            return request.header
        break
    raise InvalidArgument("header", "the first message must be the header")


async def _receive(requests: AsyncIterator[pb.WriteArchiveRequest], incoming: Incoming) -> None:
    """Take the archive up to its end. A stream that merely stops may be that of a dead caller."""
    path = shown(incoming.target.path)
    async for request in requests:
        match request.WhichOneof("part"):
            case "data":
                await incoming.write(request.data)
            case "end" if request.end.bytes == incoming.size:
                return
            case "end":
                raise UploadIncomplete("not all of the archive came", path=path)
            case _:
                raise InvalidArgument("header", "only the first message is a header")
    raise UploadIncomplete("the stream stopped without its end", path=path)


def _unpacked(found: Counted) -> pb.Unpacked:
    return pb.Unpacked(entries=found.entries, bytes=found.other)


def _event(event: Event) -> pb.WatchFilesResponse:
    match event:
        case Started():
            return pb.WatchFilesResponse(started=pb.WatchStarted())
        case Beat():
            return pb.WatchFilesResponse(heartbeat=pb.WatchHeartbeat())
        case Changed(frames.OVERFLOW):
            return pb.WatchFilesResponse(overflow=pb.WatchOverflow())
        case Changed(frames.GONE):
            return pb.WatchFilesResponse(end=pb.WatchEnd())
    change = pb.FileChange(kind=_KINDS[event.kind], directory=event.directory)
    if text := text_of(event.path):
        change.path = text
    else:
        change.raw_path = event.path
    if text := text_of(event.before):
        change.previous_path = text
    else:
        change.raw_previous_path = event.before
    return pb.WatchFilesResponse(change=change)
