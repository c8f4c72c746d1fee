"""Clients that call one after the other, and what they were told."""

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc
from google.rpc import error_details_pb2

from cove.executor.v1.executor_pb2 import ExecutionSpec, WriteFileEnd
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import (
    ExecutionServiceStub,
    FileServiceStub,
    SourceServiceStub,
    WorkspaceServiceStub,
)
from cove.git.v1.git_pb2 import Commit
from tests.servicekit.failing import Failure, answered

ANNOUNCED: Final = frozenset({"RATE_LIMITED", "OVERLOADED", "AGENT_UNAVAILABLE"})
"""With RetryInfo. The last is told of an agent that has not answered in ten seconds: all sandboxes
together have one share of a machine that others use as well."""
_NOTHING: Final = "NOTHING_TO_COMMIT"
"""Another client has committed what this one wrote."""


class Told:
    """By all clients together."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.refused: Counter[str] = Counter()
        self.wrong: list[str] = []


class Customer:
    """Calls on a few workspaces that others use as well, and on some of its own."""

    def __init__(
        self,
        name: str,
        channel: grpc.aio.Channel,
        token: str,
        repository: str,
        shared: list[str],
        told: Told,
        seed: str,
    ) -> None:
        self._name = name
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._repository = repository
        self._shared = shared
        self._told = told
        self._random = random.Random(seed)
        self._count = 0
        self._workspaces = WorkspaceServiceStub(channel)
        self._executions = ExecutionServiceStub(channel)
        self._files = FileServiceStub(channel)
        self._sources = SourceServiceStub(channel)
        self._kinds: dict[str, tuple[int, Callable[[str], Awaitable[Any]]]] = {
            "get": (24, self._get),
            "list": (8, self._list),
            "status": (6, self._status),
            "read": (12, self._read),
            "write": (8, self._write),
            "files": (8, self._list_files),
            "execute": (14, self._execute),
            "stream": (8, self._stream),
            "commit": (6, self._commit),
        }

    async def live(self, leave: asyncio.Event) -> None:
        names = list(self._kinds)
        weights = [weight for weight, _ in self._kinds.values()]
        while not leave.is_set():
            if self._random.random() < 0.02:
                await self._make_and_delete()
                continue
            (kind,) = self._random.choices(names, weights)
            await self._timed(kind, self._kinds[kind][1](self._random.choice(self._shared)))

    async def _timed(self, kind: str, call: Awaitable[Any]) -> bool:
        """Whether it was done; if not, after what it was told to wait."""
        began = time.perf_counter()
        try:
            await call
        except grpc.aio.AioRpcError as error:
            failure = Failure(error)
            retry = failure.detail(error_details_pb2.RetryInfo)
            if failure.reason in ANNOUNCED and retry is not None:
                self._told.refused[f"{kind} {failure.reason}"] += 1
                await asyncio.sleep(retry.retry_delay.ToTimedelta().total_seconds())
                return False
            if failure.reason != _NOTHING:
                self._told.wrong.append(
                    f"{kind}: {error.code().name} {failure.reason} {failure.text}"
                )
                return False
        self._told.seconds[kind].append(time.perf_counter() - began)
        return True

    async def make(self, name: str) -> None:
        request = pb.CreateWorkspaceRequest(workspace_id=name)
        request.workspace.spec.repository = self._repository
        await self._workspaces.CreateWorkspace(request, metadata=self._metadata)

    async def awake(self, name: str) -> None:
        """Have its sandbox started."""
        await self._execute(name)

    async def delete(self, name: str) -> None:
        request = pb.DeleteWorkspaceRequest(
            name=f"workspaces/{name}", force=True, allow_missing=True
        )
        await self._workspaces.DeleteWorkspace(request, metadata=self._metadata)

    async def _make_and_delete(self) -> None:
        self._count += 1
        name = f"{self._name}-{self._count}"
        if await self._timed("create", self.make(name)):
            await self._timed("own", self._execute(name))
        while not await self._timed("delete", self.delete(name)):
            if self._told.wrong:
                return

    async def _get(self, name: str) -> None:
        request = pb.GetWorkspaceRequest(name=f"workspaces/{name}")
        await self._workspaces.GetWorkspace(request, metadata=self._metadata)

    async def _list(self, _: str) -> None:
        request = pb.ListWorkspacesRequest(page_size=10)
        await self._workspaces.ListWorkspaces(request, metadata=self._metadata)

    async def _status(self, name: str) -> None:
        request = pb.GetWorktreeStatusRequest(name=f"workspaces/{name}", max_entries=100)
        await self._sources.GetWorktreeStatus(request, metadata=self._metadata)

    async def _read(self, name: str) -> None:
        request = pb.ReadFileRequest(name=f"workspaces/{name}", path="README.md")
        async for _ in self._files.ReadFile(request, metadata=self._metadata):
            pass

    async def _list_files(self, name: str) -> None:
        request = pb.ListFilesRequest(name=f"workspaces/{name}", page_size=20)
        await self._files.ListFiles(request, metadata=self._metadata)

    async def _write(self, name: str) -> None:
        await answered(self._files.WriteFile(self._content(name), metadata=self._metadata))

    async def _content(self, name: str) -> AsyncIterator[pb.WriteFileRequest]:
        header = pb.WriteFileHeader(name=f"workspaces/{name}", path=f"{self._name}.txt")
        yield pb.WriteFileRequest(header=header)
        data = self._random.randbytes(2000).hex().encode()
        yield pb.WriteFileRequest(data=data)
        yield pb.WriteFileRequest(end=WriteFileEnd(bytes=len(data)))

    async def _execute(self, name: str) -> None:
        request = pb.ExecuteRequest(name=f"workspaces/{name}", spec=ExecutionSpec(argv=["true"]))
        await self._executions.Execute(request, metadata=self._metadata)

    async def _stream(self, name: str) -> None:
        spec = ExecutionSpec(argv=["head", "-c", "20000", "/dev/zero"])
        request = pb.StreamExecutionRequest(name=f"workspaces/{name}", spec=spec)
        async for _ in self._executions.StreamExecution(request, metadata=self._metadata):
            pass

    async def _commit(self, name: str) -> None:
        await self._write(name)
        request = pb.CreateCommitRequest(
            parent=f"workspaces/{name}",
            commit=Commit(message="load"),
            paths=[f"{self._name}.txt"],
        )
        await self._sources.CreateCommit(request, metadata=self._metadata)
