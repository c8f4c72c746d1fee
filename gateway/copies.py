"""Snapshots and forks as git makes them; processes are frozen where that takes a copy."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import grpc

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.git.v1 import git_pb2
from cove.registry.v1.registry_pb2 import Environment
from gateway import names
from gateway.errors import SnapshotNotFound, WorkspaceNotFound
from gateway.records import Records
from gateway.still import Stills
from gateway.tools import Tools
from servicekit.status import reason

T = TypeVar("T")

_SECONDS: Final = 600.0


class Copies:
    def __init__(self, tools: Tools, records: Records, stills: Stills) -> None:
        self._git = tools.git
        self._records = records
        self._stills = stills

    async def fork(self, environment: Environment, request_id: str) -> git_pb2.ForkWorktreeResponse:
        """The worktree of a new environment, made of its source's. Raises `WorkspaceNotFound`."""
        source = environment.source
        name = names.workspace_name(source.name)

        async def call(live: bool) -> git_pb2.ForkWorktreeResponse:
            request = git_pb2.ForkWorktreeRequest(
                uid=environment.uid,
                source_uid=source.uid,
                snapshot_id=source.snapshot_id,
                branch=names.branch_of(environment),
                copy_live=live,
                request_id=_derived(request_id, f"{environment.uid}/fork", live),
            )
            return await self._git.unary(self._git.rpc.ForkWorktree, request, timeout=_SECONDS)

        async def found() -> Environment:
            current = await self._records.get(name)
            if current.uid != source.uid:
                raise WorkspaceNotFound(name)
            return current

        try:
            return await self._copied(call, found)
        except grpc.aio.AioRpcError as error:
            if reason(error) == ErrorReason.ERROR_REASON_WORKTREE_NOT_FOUND:
                raise WorkspaceNotFound(name) from None
            raise

    async def snapshot(
        self, environment: Environment, snapshot_id: str, request_id: str
    ) -> git_pb2.Snapshot:
        """Keep it as it is now."""

        async def call(live: bool) -> git_pb2.SnapshotWorktreeResponse:
            request = git_pb2.SnapshotWorktreeRequest(
                uid=environment.uid,
                snapshot_id=snapshot_id,
                copy_live=live,
                request_id=_derived(request_id, "SnapshotWorktree", live),
            )
            return await self._git.unary(self._git.rpc.SnapshotWorktree, request, timeout=_SECONDS)

        async def found() -> Environment:
            return environment

        try:
            return (await self._copied(call, found)).snapshot
        except grpc.aio.AioRpcError as error:
            if reason(error) != ErrorReason.ERROR_REASON_SNAPSHOT_EXISTS or not request_id:
                raise
        # It may be this request that made it, when a process was there.
        return (await call(live=True)).snapshot

    async def list(self, environment: Environment) -> list[git_pb2.Snapshot]:
        """The oldest first."""
        request = git_pb2.GetWorktreeRequest(uid=environment.uid)
        worktree = (await self._git.unary(self._git.rpc.GetWorktree, request)).worktree
        return list(worktree.snapshots)

    async def remove(
        self, environment: Environment, snapshot_id: str, request_id: str, *, allow_missing: bool
    ) -> None:
        """Raises `SnapshotNotFound`."""
        request = git_pb2.RemoveSnapshotRequest(
            uid=environment.uid,
            snapshot_id=snapshot_id,
            request_id=names.derived(request_id, "RemoveSnapshot"),
        )
        answer = await self._git.unary(self._git.rpc.RemoveSnapshot, request)
        if not answer.existed and not allow_missing:
            raise SnapshotNotFound(snapshot_id)

    async def _copied(
        self, call: Callable[[bool], Awaitable[T]], source: Callable[[], Awaitable[Environment]]
    ) -> T:
        """What `call` answers; where a sandbox has the worktree, once more while that is still."""
        try:
            return await call(False)
        except grpc.aio.AioRpcError as error:
            if reason(error) != ErrorReason.ERROR_REASON_WORKTREE_IN_USE:
                raise
        async with self._stills.held(await source(), end_idle=True):
            return await call(True)


def _derived(request_id: str, step: str, live: bool) -> str:
    """A copy is another request to git: it has other content."""
    return names.derived(request_id, f"{step}/live" if live else step)
