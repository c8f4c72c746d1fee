"""Files of a workspace."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TypeAlias

from cove import status
from cove.archive import Copied as Copied
from cove.archive import UnsafeArchive as UnsafeArchive
from cove.connection import Connection, request_id
from cove.content import UPLOAD_DEADLINE, pieces, same
from cove.content import Content as Content
from cove.directories import Directories
from cove.executor.v1.executor_pb2 import (
    File,
    FileChange,
    WatchOverflow,
    WatchStarted,
    WriteFileEnd,
)
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import FileServiceStub
from cove.paths import AnyPath as AnyPath
from cove.paths import path_fields
from cove.paths import raw_path as raw_path

FileEvent: TypeAlias = FileChange | WatchOverflow | WatchStarted
"""Something that changed, that changes were lost, or that the watch has begun."""


class Files:
    """The files of one workspace. No path and no symbolic link leads out of it.

    All calls raise `NotFound` when nothing is at the path, `InvalidArgument` when it leads out of
    the workspace, `FailedPrecondition` when it is of another kind, and `PermissionDenied`.
    """

    def __init__(self, connection: Connection, workspace: str) -> None:
        self._connection = connection
        self._stub = FileServiceStub(connection.channel)
        self._workspace = workspace
        self._directories = Directories(connection, self._stub, workspace)

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
                                etag = same(etag, answer.file.etag)
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
            for data in pieces(content):
                sent += len(data)
                yield pb.WriteFileRequest(data=data)
                if on_progress:
                    on_progress(sent)
            yield pb.WriteFileRequest(end=WriteFileEnd(bytes=sent))

        answer = await self._connection.upload(
            self._stub.WriteFile, requests, timeout=UPLOAD_DEADLINE
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
        return await self._directories.upload(source, path, make_parents, on_progress)

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
        return await self._directories.download(path, target, on_progress)

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
