"""Snapshots of worktrees, and worktrees made of them or of others as they are now."""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final

from servicekit.aside import aside
from servicekit.disk import DiskGuard
from services.git import files, inside
from services.git.cell import Cells
from services.git.errors import SnapshotExists, SnapshotNotFound, WorktreeExists
from services.git.names import check_branch
from services.git.record import Mode, Record, Snapshot, State
from services.git.records import Records
from services.git.removal import drop_refs
from services.git.stacks import Stacks
from services.git.workspace import Workspace
from services.git.worktrees import Worktrees

_MAX_SNAPSHOTS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A worktree to be made of another one."""

    uid: str
    source: str
    snapshot: str
    """Of the source; empty: as it is now."""
    branch: str
    copy_live: bool


class Forks:
    def __init__(
        self,
        worktrees: Worktrees,
        stacks: Stacks,
        cells: Cells,
        disk: DiskGuard,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._worktrees = worktrees
        self._records: Records = worktrees.records
        self._stacks = stacks
        self._cells = cells
        self._disk = disk
        self._clock = clock

    async def snapshot(
        self, uid: str, tenant: str, name: str, *, copy_live: bool, request_id: str = ""
    ) -> Snapshot:
        """Keep a worktree as it is. The same request id again returns the same snapshot.

        Raises `SnapshotExists`, `InUse`.
        """
        record, workspace = await self._worktrees.ready(uid, tenant)
        self._disk.check()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(workspace.lock)
            record = self._records.ready(uid)
            for one in record.snapshots:
                if one.id == name and request_id and one.request == request_id:
                    return one
                if one.id == name:
                    raise SnapshotExists("there is a snapshot of this id", snapshot=name)
            if len(record.snapshots) >= _MAX_SNAPSHOTS:
                raise SnapshotExists(
                    "there are too many snapshots", snapshot=name, remedy="Remove some."
                )
            record, layers = await self._stacks.frozen(record, workspace, copy_live=copy_live)
            await stack.enter_async_context(self._stacks.kept(layers))
            made = Snapshot(
                id=name,
                layers=layers,
                head=workspace.head,
                time=self._clock(),
                request=request_id,
            )
            if made.head:
                with workspace.repository.writing():
                    await workspace.repository.point(f"{uid}/snapshots/{name}", made.head)
            await self._records.keep(replace(record, snapshots=(*record.snapshots, made)))
            return made

    async def remove_snapshot(self, uid: str, tenant: str, name: str) -> bool:
        """Remove it; whether there was one."""
        record, workspace = await self._worktrees.ready(uid, tenant)
        async with workspace.lock:
            record = self._records.ready(uid)
            left = tuple(one for one in record.snapshots if one.id != name)
            gone = [one for one in record.snapshots if one.id == name]
            if not gone:
                return False
            await self._records.keep(replace(record, snapshots=left))
            if gone[0].head:
                with workspace.repository.writing():
                    await drop_refs(workspace.repository, f"{uid}/snapshots/{name}")
            await self._stacks.release(gone[0].layers)
            return True

    async def fork(self, wanted: Wanted, tenant: str) -> Record:
        """Make it, or finish or return what is there. When it fails nothing is left of it.

        Raises `WorktreeExists`, `BranchExists`, `SnapshotNotFound`, `InUse`.
        """
        check_branch(wanted.branch)
        async with self._worktrees.locked(wanted.uid):
            found = self._records.find(wanted.uid)
            if found is not None and not _is_same(found, wanted, tenant):
                raise WorktreeExists("the uid has a worktree of other input", uid=wanted.uid)
            if found is not None and found.state is State.READY:
                return found
            await self._worktrees.whole(found)
            self._disk.check()
            source, workspace = await self._worktrees.ready(wanted.source, tenant)
            async with AsyncExitStack() as stack:
                made = await self._begin(stack, wanted, source, workspace)
                try:
                    return await self._finish(made, workspace)
                except BaseException:
                    await asyncio.shield(self._worktrees.undo(made))
                    raise

    async def _begin(
        self, stack: AsyncExitStack, wanted: Wanted, source: Record, workspace: Workspace
    ) -> Record:
        """The record of what is to be made, which keeps the layers from now on."""
        async with workspace.lock:
            source = self._records.ready(source.uid)
            if wanted.snapshot:
                chosen = [one for one in source.snapshots if one.id == wanted.snapshot]
                if not chosen:
                    raise SnapshotNotFound("there is no such snapshot", snapshot=wanted.snapshot)
                layers, head = chosen[0].layers, chosen[0].head
            else:
                source, layers = await self._stacks.frozen(
                    source, workspace, copy_live=wanted.copy_live
                )
                head = workspace.head
            await stack.enter_async_context(self._stacks.kept(layers))
            # What a removal has begun to take away meanwhile is not what the source was.
            self._records.ready(source.uid)
            return await self._records.keep(
                replace(
                    source,
                    uid=wanted.uid,
                    branch=wanted.branch,
                    state=State.CREATING,
                    create_time=self._clock(),
                    layers=layers,
                    source=(wanted.source, wanted.snapshot),
                    inside=head,
                    snapshots=(),
                    freezing="",
                    warnings=(),
                    last_request="",
                    last_commit="",
                    last_skipped=(),
                    provenance_time=0,
                    provenance_running=(),
                ),
                durable=False,
            )

    async def _finish(self, record: Record, workspace: Workspace) -> Record:
        directory, sandbox = self._records.directory(record.uid), workspace.repository.sandbox
        for left in [path for path in directory.iterdir() if path.is_dir()]:
            await files.remove_tree(left)
        paths = self._worktrees.layout.paths(record)
        if record.mode is Mode.PLAIN:
            await self._stacks.copy_to(record.layers[0], paths.tree)
        else:
            files.make_directory(paths.tree, sandbox, self._cells.mode_of(sandbox))
            files.make_directory(paths.work, sandbox)
            await aside(self._stacks.write, directory, record.layers)
        paths.outside.mkdir()
        paths.lock.touch(mode=0o600)
        if record.inside:
            with workspace.repository.writing():
                await workspace.repository.point(record.uid, record.inside)
        root = os.open(paths.tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            inside.turn(root, sandbox, record.branch, record.inside)
        finally:
            os.close(root)
        if record.mode is Mode.PLAIN:
            layers, record = record.layers, replace(record, layers=())
        ready = await self._records.keep(replace(record, state=State.READY))
        if record.mode is Mode.PLAIN:
            await self._stacks.release(layers)
        return ready


def _is_same(record: Record, wanted: Wanted, tenant: str) -> bool:
    return (record.tenant, record.source, record.branch) == (
        tenant,
        (wanted.source, wanted.snapshot),
        wanted.branch,
    )
