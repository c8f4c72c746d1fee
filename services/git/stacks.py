"""The frozen layers of worktrees: made of an upper layer, shared, put into one, removed.

    layers/<name>/            frozen for ever; several worktrees may stand on it
    worktrees/<uid>/stack     names of those a worktree stands on, for who mounts it

A layer is made in steps that each can be the last one. The record says that it is going to be
made; then the stack names it; then the upper layer becomes it; then there is a new upper layer.
In between nobody can mount the worktree, as something that is named is not there.
"""

import asyncio
import base64
import fcntl
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from services.git import files, flat
from services.git.beside import whole
from services.git.cell import Cells, owner_of
from services.git.errors import InUse, TreeChanges, WorktreeNotFound
from services.git.record import Mode, Record
from services.git.records import Records
from services.git.workspace import Workspace

_ATTEMPTS: Final = 3
_DEPTH: Final = 40
"""Layers that a worktree stands on, above which they become one: 64 can be mounted."""

EMPTY: Final = "empty"
"""The lowest layer of a worktree without a checkout."""


class Stacks:
    """All frozen layers of this node. One process owns the directory."""

    def __init__(self, root: Path, records: Records, cells: Cells) -> None:
        self._root = root
        self._records = records
        self._cells = cells
        self._making: set[str] = set()

    async def load(self) -> None:
        """Go on with what a former process began; remove what nobody stands on."""
        for record in list(self._records):
            if record.freezing:
                await self.finish(record)
            elif record.layers and record.mode is not Mode.PLAIN:
                self._tell(record)
        for path in list(self._root.iterdir()):
            if not path.name.startswith(EMPTY) and not self._records.stand_on(path.name):
                await files.remove_tree(path)

    async def frozen(
        self, record: Record, workspace: Workspace, *, copy_live: bool
    ) -> tuple[Record, tuple[str, ...]]:
        """Layers that hold what the worktree is now. Call it with the workspace locked.

        Raises `InUse` where a sandbox has it, unless a copy will do.
        """
        if record.freezing:
            record = await self.finish(record, workspace)
        async with _alone(workspace.paths.lock) as alone:
            if not alone and not copy_live:
                raise InUse("a sandbox has the worktree", uid=record.uid)
            if not alone or workspace.is_plain:
                below = () if workspace.is_plain else record.layers
                return record, (await self._copy(workspace.tree), *below)
            if any(workspace.tree.iterdir()):
                if len(record.layers) >= _DEPTH:
                    record = await whole(self._flatten(record, workspace))
                record = await self._records.keep(replace(record, freezing=_new_name()))
                record = await whole(self._freeze(record, workspace))
        return record, record.layers

    async def finish(self, record: Record, workspace: Workspace | None = None) -> Record:
        """Go on with a freezing that was broken off. Call it with the workspace, if any, locked.

        Until then nothing can be said of the worktree: what was its upper layer may be below it.
        """
        async with _alone(self._records.directory(record.uid) / "lock") as alone:
            if alone or (self._root / record.freezing).exists():
                return await whole(self._freeze(record, workspace))
            # It had not begun when a sandbox was started over the upper layer.
            return await self._records.keep(replace(record, freezing=""))

    def write(self, directory: Path, layers: Sequence[str]) -> None:
        """Tell who mounts the worktree in `directory` what it stands on."""
        text = "".join(f"{name}\n" for name in layers)
        files.write(directory / "stack", text.encode(), mode=0o600)

    def _tell(self, record: Record) -> None:
        """As `write`, where that was not done: the last step of putting layers into one."""
        directory = self._records.directory(record.uid)
        try:
            told = (directory / "stack").read_text("ascii", "replace").split()
        except FileNotFoundError:  # Half-made, or half-removed.
            return
        if tuple(told) != record.layers:
            self.write(directory, record.layers)

    async def copy_to(self, layer: str, target: Path) -> None:
        """Make `target` a copy of a layer that is a whole worktree."""
        await _copy(self._root / layer, target)

    async def release(self, layers: Sequence[str]) -> None:
        """Remove those of `layers` that nobody stands on any more."""
        for name in dict.fromkeys(layers):
            if name not in self._making and not self._records.stand_on(name):
                await files.remove_tree(self._root / name)

    @asynccontextmanager
    async def kept(self, layers: Sequence[str]) -> AsyncIterator[None]:
        """Keep layers while no record names them yet; those that none names then are removed."""
        new = set(layers) - self._making
        self._making |= new
        try:
            yield
        finally:
            self._making -= new
            await asyncio.shield(self.release(layers))

    def _paths(self, record: Record) -> tuple[Path, ...]:
        return tuple(self._root / name for name in record.layers)

    async def _freeze(self, record: Record, workspace: Workspace | None) -> Record:
        """Make the upper layer a frozen one, from whatever step this was left at."""
        layers = (record.freezing, *record.layers)
        try:
            await asyncio.to_thread(self._move, record, layers)
            record = await self._records.keep(replace(record, layers=layers, freezing=""))
        except (WorktreeNotFound, FileNotFoundError):  # It was removed meanwhile.
            await self.release([record.freezing])
            self._records.ready(record.uid)
            raise
        finally:
            self._restack(workspace)
        return record

    def _restack(self, workspace: Workspace | None) -> None:
        """Have it stand on what its record says, also where that was kept and then failed."""
        if workspace is not None and (record := self._records.find(workspace.uid)):
            workspace.restack(self._paths(record))

    def _move(self, record: Record, layers: Sequence[str]) -> None:
        directory = self._records.directory(record.uid)
        self.write(directory, layers)
        layer, upper = self._root / record.freezing, directory / "upper"
        if not layer.exists():
            upper.rename(layer)
            files.sync_directory(self._root)
        owner = owner_of(layer)
        files.make_directory(upper, owner, self._cells.mode_of(owner))
        files.sync_directory(directory)

    async def _copy(self, tree: Path) -> str:
        name = _new_name()
        making = self._root / f".{name}"
        try:
            await _copy(tree, making)
            making.rename(self._root / name)
        except BaseException:
            await asyncio.shield(files.remove_tree(making))
            raise
        return name

    async def _flatten(self, record: Record, workspace: Workspace) -> Record:
        """Put all its layers into one. The others may be those of somebody else."""
        name = _new_name()
        making = self._root / f".{name}"
        try:
            await asyncio.to_thread(flat.flatten, self._paths(record), making, record.mode)
        except BaseException:
            await asyncio.shield(files.remove_tree(making))
            raise
        making.rename(self._root / name)
        former = record.layers
        self._making.add(name)
        try:
            record = await self._records.keep(replace(record, layers=(name,)))
        finally:
            self._restack(workspace)
            self._making.discard(name)
            await self.release([name])
        await asyncio.to_thread(self.write, workspace.paths.directory, record.layers)
        await self.release(former)
        return record


def _new_name() -> str:
    return base64.b32encode(secrets.token_bytes(10)).decode().lower()


@asynccontextmanager
async def _alone(lock: Path) -> AsyncIterator[bool]:
    """Keep sandboxes from being started; False where there is one."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


async def _copy(source: Path, target: Path) -> None:
    """Copy a tree with all its marks, links and holes; Raises `TreeChanges`."""
    for _ in range(_ATTEMPTS):
        process = await asyncio.create_subprocess_exec(
            *("cp", "-a", "--reflink=auto", "--sparse=auto", "--no-target-directory", "--"),
            *(str(source), str(target)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        )
        try:
            code = await process.wait()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        if code == 0:
            return
        await files.remove_tree(target)
    raise TreeChanges("the files change while they are copied; a frozen sandbox would hold still")
