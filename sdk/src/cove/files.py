"""Files of a workspace."""

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO, Final, TypeAlias, TypedDict

from cove import archive, status
from cove.archive import Copied as Copied
from cove.archive import UnsafeArchive as UnsafeArchive
from cove.connection import Connection, request_id
from cove.executor.v1.executor_pb2 import (
    File,
    FileChange,
    WatchOverflow,
    WatchStarted,
    WriteFileEnd,
)
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import FileServiceStub

AnyPath = str | bytes | PurePath
"""A path in a workspace: relative to its root, or absolute below it."""

FileEvent: TypeAlias = FileChange | WatchOverflow | WatchStarted
"""Something that changed, that changes were lost, or that the watch has begun."""

_CHUNK: Final = 256 * 1024
_UPLOAD_DEADLINE: Final = 3600.0


class _PathFields(TypedDict, total=False):
    path: str
    raw_path: bytes


def path_fields(path: AnyPath) -> _PathFields:
    """The path as `path`, or as `raw_path` when it is not UTF-8."""
    raw = os.fsencode(path)
    try:
        return {"path": raw.decode()}
    except UnicodeDecodeError:
        return {"raw_path": raw}


def raw_path(file: File) -> bytes:
    """The path of a file as bytes, whichever field has it."""
    return file.raw_path or file.path.encode()


@dataclass(frozen=True, slots=True)
class Content:
    """What was read of a file, and what the file was then."""

    file: File
    """Its `etag` makes a write conditional on what was read."""

    data: bytes


class Files:
    """The files of one workspace. No path and no symbolic link leads out of it.

    All calls raise `NotFound` when nothing is at the path, `InvalidArgument` when it leads out of
    the workspace, `FailedPrecondition` when it is of another kind, and `PermissionDenied`.
    """

    def __init__(self, connection: Connection, workspace: str) -> None:
        self._connection = connection
        self._stub = FileServiceStub(connection.channel)
        self._workspace = workspace

    async def read(self, path: AnyPath, offset: int = 0, limit: int = 0) -> bytes:
        """The content, or `limit` bytes of it from `offset` on; a `limit` of 0 means all."""
        return b"".join([data async for data in self.download(path, offset, limit)])

    async def read_text(self, path: AnyPath) -> str:
        """The content as text. Raises `UnicodeDecodeError` when it is not UTF-8."""
        return (await self.read(path)).decode()

    async def fetch(self, path: AnyPath, offset: int = 0, limit: int = 0) -> Content:
        """The content as `read` has it, with what the file was, say for a `write` with its etag."""
        file, pieces = File(), list[bytes]()
        async with aclosing(self._events(path, offset, limit)) as events:
            async for event in events:
                if isinstance(event, File):
                    file = event
                else:
                    pieces.append(event)
        return Content(file, b"".join(pieces))

    async def download(
        self, path: AnyPath, offset: int = 0, limit: int = 0
    ) -> AsyncGenerator[bytes, None]:
        """The content in pieces; after a drop it goes on where it was.

        Raises `Aborted` when the file was changed meanwhile.
        """
        async with aclosing(self._events(path, offset, limit)) as events:
            async for event in events:
                if isinstance(event, bytes):
                    yield event

    async def _events(
        self, path: AnyPath, offset: int, limit: int
    ) -> AsyncGenerator[File | bytes, None]:
        """What the file is, once for each attempt, and its content in pieces."""
        patience, etag, end = self._connection.patience(), "", offset + limit
        while True:
            request = pb.ReadFileRequest(
                name=self._workspace,
                offset=offset,
                limit=end - offset if limit else 0,
                **path_fields(path),
            )
            patience.begin()
            try:
                async with self._connection.stream(self._stub.ReadFile, request) as answers:
                    async for answer in answers:
                        match answer.WhichOneof("event"):
                            case "file":
                                etag = _same(etag, answer.file.etag)
                                yield answer.file
                            case "data":
                                patience.refill()
                                offset += len(answer.data)
                                yield answer.data
                            case "end":
                                return
                raise status.Unavailable("the stream ended without its last event", broken_off=True)
            except status.Unavailable as error:
                if limit and offset == end:
                    return
                await patience.wait(error)

    async def write(
        self,
        path: AnyPath,
        content: str | bytes | Path,
        *,
        mode: int = 0,
        etag: str = "",
        must_not_exist: bool = False,
        make_parents: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> File:
        """Write a whole file at once: text as UTF-8, bytes, or those of a local file, a `Path`.

        Readers see the old content or the new. `mode` is for a new file, 0 means 0644. With an
        `etag` only over the file that has it, else `Aborted` is raised; with `must_not_exist`
        `AlreadyExists` when one is there; `NotFound` when its directory is missing, unless
        `make_parents`; `ResourceExhausted` when no space is left. `on_progress` is told how many
        bytes are on their way.
        """
        header = pb.WriteFileHeader(
            name=self._workspace,
            mode=mode,
            etag=etag,
            must_not_exist=must_not_exist,
            make_parents=make_parents,
            request_id=request_id(),
            **path_fields(path),
        )

        async def requests() -> AsyncIterator[pb.WriteFileRequest]:
            yield pb.WriteFileRequest(header=header)
            sent = 0
            for data in _pieces(content):
                sent += len(data)
                yield pb.WriteFileRequest(data=data)
                if on_progress:
                    on_progress(sent)
            yield pb.WriteFileRequest(end=WriteFileEnd(bytes=sent))

        answer = await self._connection.upload(
            self._stub.WriteFile, requests, timeout=_UPLOAD_DEADLINE
        )
        return answer.file

    async def upload_directory(
        self,
        source: Path,
        path: AnyPath = ".",
        *,
        make_parents: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> Copied:
        """Copy what is in a local directory into one of the workspace, which is made if missing.

        All of it arrives, or nothing; then what is there of the same name is replaced. Symbolic
        links that lead out of `source`, pipes, sockets and devices are left out and told of.
        `on_progress` is told how many bytes are on their way. Raises `OSError` when something
        cannot be read here, `FailedPrecondition` when a file is in the place of a directory.
        """
        header = pb.WriteArchiveHeader(
            name=self._workspace,
            make_parents=make_parents,
            request_id=request_id(),
            **path_fields(path),
        )
        copied = Copied()

        async def requests() -> AsyncIterator[pb.WriteArchiveRequest]:
            nonlocal copied
            copied = Copied()
            yield pb.WriteArchiveRequest(header=header)
            sent = 0
            for data in archive.pack(source, copied):
                sent += len(data)
                yield pb.WriteArchiveRequest(data=data)
                if on_progress:
                    on_progress(sent)
            yield pb.WriteArchiveRequest(end=WriteFileEnd(bytes=sent))

        await self._connection.upload(self._stub.WriteArchive, requests, timeout=_UPLOAD_DEADLINE)
        return copied

    async def download_directory(
        self,
        path: AnyPath,
        target: Path,
        *,
        on_progress: Callable[[int], None] | None = None,
    ) -> Copied:
        """Copy what is in a directory of the workspace into a local one, made if it is missing.

        The workspace is not believed: nothing outside of `target` is written, links in it are not
        followed, and those that lead out of `path` are left out and told of. Nothing is written
        before all came. `on_progress` is told how many bytes came. Raises `UnsafeArchive`,
        and `OSError` when something cannot be written here.
        """
        with tempfile.TemporaryFile() as spool:
            await self._spool(path, spool, on_progress)
            return await asyncio.to_thread(archive.unpack, spool, target, None)

    async def _spool(
        self, path: AnyPath, spool: BinaryIO, on_progress: Callable[[int], None] | None
    ) -> None:
        """The archive of `path`, from its beginning in each attempt."""
        patience = self._connection.patience()
        request = pb.ReadArchiveRequest(name=self._workspace, **path_fields(path))
        while True:
            patience.begin()
            spool.seek(0)
            spool.truncate()
            try:
                async with self._connection.stream(self._stub.ReadArchive, request) as answers:
                    async for answer in answers:
                        if answer.HasField("end"):
                            return
                        await asyncio.to_thread(spool.write, answer.data)
                        if on_progress:
                            on_progress(spool.tell())
                raise status.Unavailable("the stream ended without its last event", broken_off=True)
            except status.Unavailable as error:
                await patience.wait(error)

    async def watch(self, path: AnyPath = ".") -> AsyncGenerator[FileEvent, None]:
        """What changes below a directory, until it is removed; `WatchStarted` comes first.

        `WatchOverflow` says that changes were lost, as this reader is too slow or after a drop of
        the connection: what there is must be listed again. Paths are relative to `path`. While it
        is watched, the sandbox of the workspace stays up.
        """
        patience, first = self._connection.patience(), True
        request = pb.WatchFilesRequest(name=self._workspace, **path_fields(path))
        while True:
            patience.begin()
            try:
                async with self._connection.stream(self._stub.WatchFiles, request) as answers:
                    async for answer in answers:
                        patience.refill()
                        match answer.WhichOneof("event"):
                            case "started":
                                yield answer.started if first else WatchOverflow()
                                first = False
                            case "change":
                                yield answer.change
                            case "overflow":
                                yield answer.overflow
                            case "end":
                                return
                raise status.Unavailable("the stream ended without its last event", broken_off=True)
            except status.Unavailable as error:
                await patience.wait(error)

    async def stat(self, path: AnyPath) -> File:
        """What is at a path; a symbolic link is not followed."""
        request = pb.StatFileRequest(name=self._workspace, **path_fields(path))
        return (await self._connection.unary(self._stub.StatFile, request)).file

    async def list(self, path: AnyPath = ".") -> AsyncGenerator[File, None]:
        """What is in a directory, in the order of the names."""
        request = pb.ListFilesRequest(name=self._workspace, **path_fields(path))
        while True:
            page = await self._connection.unary(self._stub.ListFiles, request)
            for file in page.files:
                yield file
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def mkdir(self, path: AnyPath, *, make_parents: bool = False) -> File:
        """Make a directory; one that is there already is no error.

        Raises `NotFound` when its parent is missing, unless `make_parents`.
        """
        request = pb.MakeDirectoryRequest(
            name=self._workspace,
            make_parents=make_parents,
            request_id=request_id(),
            **path_fields(path),
        )
        return (await self._connection.unary(self._stub.MakeDirectory, request)).file

    async def remove(
        self,
        path: AnyPath,
        *,
        recursive: bool = False,
        allow_missing: bool = False,
        etag: str = "",
    ) -> None:
        """Remove a file, a link or a directory.

        Raises `FailedPrecondition` when it holds something, unless `recursive`; `Aborted` when it
        is not the one with `etag`.
        """
        request = pb.RemoveFileRequest(
            name=self._workspace,
            recursive=recursive,
            allow_missing=allow_missing,
            etag=etag,
            request_id=request_id(),
            **path_fields(path),
        )
        await self._connection.unary(self._stub.RemoveFile, request)

    async def move(self, path: AnyPath, new_path: AnyPath, *, overwrite: bool = False) -> File:
        """Rename within the workspace.

        Raises `AlreadyExists` when something is at the new path, unless `overwrite`.
        """
        request = pb.MoveFileRequest(
            name=self._workspace,
            overwrite=overwrite,
            request_id=request_id(),
            **path_fields(path),
        )
        new = path_fields(new_path)
        request.new_path, request.raw_new_path = new.get("path", ""), new.get("raw_path", b"")
        return (await self._connection.unary(self._stub.MoveFile, request)).file


def _pieces(content: str | bytes | Path) -> Iterator[bytes]:
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, bytes):
        for begin in range(0, len(content), _CHUNK):
            yield content[begin : begin + _CHUNK]
        return
    with content.open("rb") as source:
        while data := source.read(_CHUNK):
            yield data


def _same(before: str, now: str) -> str:
    if before and before != now:
        raise status.Aborted(
            "the file was changed while it was read",
            reason="ERROR_REASON_FILE_CHANGED",
            remedy="Read it again.",
        )
    return now
