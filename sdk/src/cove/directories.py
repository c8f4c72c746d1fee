"""Directories of a workspace on their way in and out, as archives."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

from cove import archive, status
from cove.archive import Copied
from cove.connection import Connection, request_id
from cove.content import UPLOAD_DEADLINE
from cove.executor.v1.executor_pb2 import WriteFileEnd
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import FileServiceStub
from cove.paths import AnyPath, path_fields

Progress = Callable[[int], None] | None
"""Told how many bytes are on their way."""


class Directories:
    """Those of one workspace; what is said of them is at `Files`."""

    def __init__(self, connection: Connection, stub: FileServiceStub, workspace: str) -> None:
        self._connection = connection
        self._stub = stub
        self._workspace = workspace

    async def upload(
        self, source: Path, path: AnyPath, make_parents: bool, on_progress: Progress
    ) -> Copied:
        """All of a local directory, or nothing."""
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

        await self._connection.upload(self._stub.WriteArchive, requests, timeout=UPLOAD_DEADLINE)
        return copied

    async def download(self, path: AnyPath, target: Path, on_progress: Progress) -> Copied:
        """Into a local directory, of which nothing is touched before all came."""
        with tempfile.TemporaryFile() as spool:
            await self._spool(path, spool, on_progress)
            return await asyncio.to_thread(archive.unpack, spool, target, None)

    async def _spool(self, path: AnyPath, spool: BinaryIO, on_progress: Progress) -> None:
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
