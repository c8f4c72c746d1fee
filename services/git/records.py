"""The records of all worktrees, in memory and on disk."""

import asyncio
import json
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from servicekit.aside import aside
from servicekit.config import StartError
from services.git import files
from services.git.beside import whole
from services.git.errors import BranchExists, WorktreeNotFound
from services.git.kept import KeptCommits
from services.git.record import (
    RECORD,
    REMOVING,
    Record,
    State,
    layers_of,
    recorded,
    written,
)


class Records:
    """All records of this node, in memory and on disk."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.kept = KeptCommits(root.with_name("kept"))
        """Of worktrees that are on other nodes."""
        self._records: dict[str, Record] = {}
        self._branches: dict[tuple[str, str, str], str] = {}
        self._users: Counter[tuple[str, str]] = Counter()
        self._layers: Counter[str] = Counter()
        self._order: list[str] = []

    def load(self) -> list[Path]:
        """Read what is on disk. Returns directories without a record: half-removed ones."""
        self._root.mkdir(exist_ok=True, mode=0o711)
        self.kept.load()
        strays = []
        for directory in sorted(self._root.iterdir()):
            try:
                record = recorded(directory)
            except ValueError as error:  # Of a later version, or damaged: not to be guessed at.
                raise StartError(f"{directory}: {error}: see cove admin check") from None
            if record is None:
                strays.append(directory)
                continue
            files.sweep(directory)
            files.sweep(directory / "outside")
            self._note(record)
        return strays

    def __iter__(self) -> Iterator[Record]:
        return self.after("")

    def after(self, uid: str, tenant: str = "") -> Iterator[Record]:
        """Those whose uid comes after `uid`, in order; of `tenant`, or of all."""
        start = bisect_right(self._order, uid)
        for other in self._order[start:]:
            record = self._records[other]
            if not tenant or record.tenant == tenant:
                yield record

    def directory(self, uid: str) -> Path:
        """Where everything of a worktree is."""
        return self._root / uid

    def find(self, uid: str) -> Record | None:
        return self._records.get(uid)

    def get(self, uid: str) -> Record:
        """Raises `WorktreeNotFound`."""
        record = self.find(uid)
        if record is None:
            raise WorktreeNotFound("no such worktree", uid=uid)
        return record

    def ready(self, uid: str) -> Record:
        """One that is complete, and not being removed. Raises `WorktreeNotFound`."""
        record = self.get(uid)
        if record.state is not State.READY:
            raise WorktreeNotFound("the worktree is not complete", uid=uid)
        return record

    async def keep(self, record: Record, *, durable: bool = True) -> Record:
        """Write it; if durable, it survives a power loss from now on. Raises `BranchExists`, and
        `WorktreeNotFound` where it was removed meanwhile.

        What was kept before survives one in any case, if it was durable. Whoever changes a record
        that is there keeps others from it, by the lock of its workspace or by that of its uid.
        """
        former = self._check(record)
        directory = self.directory(record.uid)
        path, data = directory / RECORD, json.dumps(written(record)).encode()
        if former is not None:
            return await whole(self._replace(record, path, data, durable))
        # Nobody is cancelled here: whoever undoes what it makes knows of it.
        directory.mkdir(exist_ok=True, mode=0o711)
        files.write(path, data, mode=0o600, durable=False)
        self._note(record)
        if durable:
            await aside(self.sync, record.uid, new=True)
        return record

    async def _replace(self, record: Record, path: Path, data: bytes, durable: bool) -> Record:
        new = self._records[record.uid].state is State.CREATING
        try:
            made = await asyncio.to_thread(
                files.write_aside, path, data, mode=0o600, durable=durable, whole=True
            )
        except FileNotFoundError:
            self._check(record)
            raise
        try:
            self._check(record)
        except BaseException:
            made.unlink(missing_ok=True)
            raise
        made.rename(path)
        self._note(record)
        if durable:
            await asyncio.to_thread(self.sync, record.uid, new=new)
        return record

    def _check(self, record: Record) -> Record | None:
        """What is kept of it now. Raises as `keep`."""
        if self._branches.get(_branch(record), record.uid) != record.uid:
            raise BranchExists("another workspace has the branch", branch=record.branch)
        former = self._records.get(record.uid)
        if record.state is State.READY and (former is None or former.state is State.REMOVING):
            raise WorktreeNotFound("the worktree was removed", uid=record.uid)
        return former

    def sync(self, uid: str, *, new: bool = False) -> None:
        """What was kept survives a power loss from now on, unless its directory is gone. The
        directory does so too if it is `new`."""
        with suppress(FileNotFoundError):
            files.sync(self.directory(uid) / RECORD)
            files.sync_directory(self.directory(uid))
            if new:
                files.sync_directory(self._root)

    async def removing(self, record: Record) -> Record:
        """Keep that it is being removed, for good. That takes no room: its record gets another
        name."""
        directory = self.directory(record.uid)
        with suppress(FileNotFoundError):
            (directory / RECORD).rename(directory / REMOVING)
        record = replace(record, state=State.REMOVING, freezing="")
        self._note(record)
        with suppress(FileNotFoundError):
            await aside(files.sync_directory, directory)
        return record

    def drop(self, uid: str) -> None:
        """Forget it; the caller has removed its directory."""
        record = self._records.pop(uid, None)
        if record is not None:
            del self._branches[_branch(record)]
            self._users[record.tenant, record.key] -= 1
            self._layers.subtract(layers_of(record))
            del self._order[bisect_left(self._order, uid)]

    def users_of(self, tenant: str, key: str) -> int:
        """How many worktrees a repository has, with those that it keeps commits for."""
        return self._users[tenant, key] + self.kept.users_of(tenant, key)

    def stand_on(self, layer: str) -> bool:
        """Whether a worktree or a snapshot needs a frozen layer."""
        return self._layers[layer] > 0

    def repositories(self) -> list[tuple[str, str]]:
        """Tenant and key of each repository that has worktrees."""
        return [name for name, count in self._users.items() if count > 0]

    def _note(self, record: Record) -> None:
        former = self._records.get(record.uid)
        if former is None:
            insort(self._order, record.uid)
            self._users[record.tenant, record.key] += 1
        else:
            self._layers.subtract(layers_of(former))
        self._layers.update(layers_of(record))
        self._records[record.uid] = record
        self._branches[_branch(record)] = record.uid


def _branch(record: Record) -> tuple[str, str, str]:
    return record.tenant, record.key, record.branch
