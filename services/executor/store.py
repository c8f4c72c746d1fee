"""Keeps executions on disk: one directory for each, which is all that is known of it.

    <root>/<uid>/<id>/spec     what was asked for; never changes
                      log      written by the agent
                      result   written by the agent, once, at the end
                      groups   its control groups, where they are others than those in `spec`
                      end      written by the executor, once: it is over, and how
                      hole     written by the executor: what of the log is kept no longer

A directory appears under its name whole and synced, or not at all. Whoever starts, ends or
removes an execution holds the flock of its directory, which a kill gives back; so any number
of executors may work on one store. Names that begin with a dot are being made or removed; what is
being made may wait for long until somebody needs it.
"""

import asyncio
import fcntl
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from agent.client import InputState
from agent.handle import valid_uid
from agent.record import BLANK_RESULT, Result, input_of
from agent.writeback import is_ordered, write_out
from services.executor.ending import SIZE, End
from services.executor.entries import (
    abandoned,
    beginning,
    content,
    locked,
    made,
    remove_tree,
    rename_new,
    reserve,
    sync_folder,
)
from services.executor.hole import SIZE as HOLE_SIZE
from services.executor.places import Place
from services.executor.record import Progress, Record, Spec, State

_log = logging.getLogger(__name__)

_VERSION: Final = 1
_ID: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NEW, _DEAD = ".new-", ".dead-"
_MAKING: Final = 60.0
"""Seconds that making a record takes at the very most."""
_ASK_AGAIN: Final = 0.01
"""Seconds between two tries to lock a record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The directory of an execution that has no id yet, with all files. Its maker holds it."""

    token: str
    folder: Path
    lock: int
    spec: int
    """Both are closed by `Draft.close`."""

    def close(self) -> None:
        os.close(self.lock)
        os.close(self.spec)


class Store:
    """The executions of a node, below one directory.

    Of its methods only those that make, list or remove may take long: the rest read or write one
    small file, which is cheaper than to have a thread do it.
    """

    def __init__(self, root: Path, making: float = _MAKING) -> None:
        self._root = root
        self._making = making
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def folder(self, uid: str, execution_id: str) -> Path:
        """Raises ValueError for what is no uid or no id, and so no part of a path."""
        if not _ID.fullmatch(execution_id):
            raise ValueError("not the id of an execution")
        return self.environment(uid) / execution_id

    def environments(self) -> list[str]:
        """Uids that have, or had, executions."""
        return sorted(each.name for each in self._root.iterdir() if valid_uid(each.name))

    def has(self, uid: str) -> bool:
        """Whether an environment has, or had, executions."""
        return self.environment(uid).exists()

    def ids(self, uid: str) -> list[str]:
        """Of the executions of an environment, in order."""
        try:
            names = [each.name for each in self.environment(uid).iterdir()]
        except FileNotFoundError:
            return []
        return sorted(name for name in names if _ID.fullmatch(name))

    def places(self, uid: str, *, timed: bool) -> list[Place]:
        """Of the executions of an environment in lists. Only where they are `timed` each is read:
        when it was made is in its file alone."""
        return [Place(self._created_ns(uid, each) if timed else 0, each) for each in self.ids(uid)]

    def _created_ns(self, uid: str, execution_id: str) -> int:
        """0 of one that is gone meanwhile, or cannot be read."""
        try:
            values = json.loads(content(self.folder(uid, execution_id), "spec").rstrip(b"\0"))
            return int(values["created_ns"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def read(self, uid: str, execution_id: str) -> Record | None:
        folder = self.folder(uid, execution_id)
        try:
            values = json.loads(content(folder, "spec").rstrip(b"\0"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        if values["version"] != _VERSION:
            raise ValueError("execution recorded by another version")
        return Record(
            uid=uid,
            execution_id=execution_id,
            spec=Spec.from_json(values["spec"]),
            created_ns=values["created_ns"],
            token=values["token"],
            folder=folder,
            disk_bytes=int(values.get("disk_bytes", 0)),
            tenant=str(values.get("tenant", "")),
            groups=tuple(map(str, values["groups"])),
        )

    def records(self, uid: str) -> list[Record]:
        """All of an environment, less those that cannot be read, which hold up nobody."""
        found = []
        for execution_id in self.ids(uid):
            try:
                record = self.read(uid, execution_id)
            except (ValueError, KeyError, TypeError):
                _log.warning("unreadable execution", extra={"fields": {"uid": uid}})
                continue
            if record:
                found.append(record)
        return found

    def draft(self, uid: str) -> Draft:
        """Make a directory for an execution to come, and hold it. Raises OSError."""
        parent = self.environment(uid)
        token = secrets.token_hex(8)
        fresh = parent / (_NEW + token)
        while True:
            parent.mkdir(mode=0o700, exist_ok=True)
            try:
                fresh.mkdir(mode=0o700)
                break
            except FileNotFoundError:  # Somebody has just removed the environment's.
                continue
        opened: list[int] = []
        try:
            opened.append(lock := os.open(fresh, os.O_RDONLY | os.O_DIRECTORY))
            fcntl.flock(lock, fcntl.LOCK_EX)
            reserve(fresh / "result", len(BLANK_RESULT))
            reserve(fresh / "end", SIZE)
            os.close(made(fresh / "log"))
            opened.append(spec := made(fresh / "spec"))
            reserve(fresh / "hole", HOLE_SIZE)
        except OSError:
            for each in opened:
                os.close(each)
            shutil.rmtree(fresh, ignore_errors=True)  # What is left is swept.
            raise
        return Draft(token=token, folder=fresh, lock=lock, spec=spec)

    def name(
        self,
        draft: Draft,
        uid: str,
        execution_id: str,
        spec: Spec,
        now_ns: int,
        groups: Sequence[str],
        disk_bytes: int = 0,
        tenant: str = "",
    ) -> Record:
        """Make a draft the record of an execution; the draft is still held.

        Everything is on disk when this returns, and so before it can be started. Raises
        FileExistsError when the id is taken; then the draft can be used for another.
        """
        folder = self.folder(uid, execution_id)
        values = {
            "version": _VERSION,
            "token": draft.token,
            "created_ns": now_ns,
            "disk_bytes": disk_bytes,
            "tenant": tenant,
            "groups": groups,
            "spec": asdict(spec),
        }
        data = json.dumps(values).encode()
        os.pwrite(draft.spec, data, 0)
        os.ftruncate(draft.spec, len(data))
        write_out([draft.spec], str(folder.parent))
        if not is_ordered(str(folder.parent)):
            os.fsync(draft.lock)
        rename_new(draft.folder, folder)
        sync_folder(folder.parent)
        return Record(
            uid=uid,
            execution_id=execution_id,
            spec=spec,
            created_ns=now_ns,
            token=draft.token,
            folder=folder,
            disk_bytes=disk_bytes,
            tenant=tenant,
            groups=tuple(groups),
        )

    def discard(self, draft: Draft) -> None:
        """Remove a draft that nobody will use."""
        draft.close()
        remove_tree(draft.folder)
        with suppress(OSError):
            draft.folder.parent.rmdir()

    @asynccontextmanager
    async def held(self, record: Record) -> AsyncIterator[bool]:
        """Hold an execution, waiting for whoever has it. False: it was removed meanwhile."""
        try:
            lock = os.open(record.folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            yield False
            return
        try:
            while not locked(lock):  # noqa: ASYNC110 # Another process has it.
                await asyncio.sleep(_ASK_AGAIN)
            yield self._is_there(record, lock)
        finally:
            os.close(lock)

    def progress(self, record: Record) -> Progress:
        with suppress(FileNotFoundError):
            if end := End.decode(content(record.folder, "end")):
                return Progress(State.ENDED, end)
        try:
            size = (record.folder / "log").stat().st_size
        except FileNotFoundError:
            return Progress(State.REMOVED)
        return Progress(State.RUNNING if size else State.STARTING)

    def result(self, record: Record) -> Result | None:
        """What the agent wrote at the end; None while it is not whole."""
        try:
            return Result.decode(beginning(record.folder, "result", len(BLANK_RESULT)))
        except (ValueError, FileNotFoundError):
            return None

    def input(self, record: Record) -> InputState | None:
        """How far the input came, as the agent noted at the end."""
        try:
            return input_of(beginning(record.folder, "result", len(BLANK_RESULT)))
        except FileNotFoundError:
            return None

    def write_end(self, record: Record, end: End) -> None:
        """Say that it is over, also on a full disk: there is a place for it.

        Not synced, as it can be told again from the rest.
        """
        descriptor = os.open(f"{record.folder}/end", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, end.encode(), 0)
        finally:
            os.close(descriptor)

    def ask(self, record: Record) -> None:
        """Note that the agent is being asked to start it."""
        os.utime(record.folder / "spec")

    def asked(self, record: Record) -> float:
        """When the agent was last asked to start it, in seconds since 1970."""
        return (record.folder / "spec").stat().st_mtime

    def groups(self, record: Record) -> list[str]:
        """Paths of its control groups."""
        try:
            return [str(path) for path in json.loads(content(record.folder, "groups"))]
        except (FileNotFoundError, ValueError):
            return list(record.groups)

    def write_groups(self, record: Record, paths: list[str]) -> None:
        """Note where its control groups are, before they are made."""
        if self.groups(record) != paths:
            (record.folder / "groups").write_text(json.dumps(paths))

    def remove(self, record: Record) -> None:
        """Remove an execution that the caller holds."""
        dead = record.folder.with_name(_DEAD + record.token)
        record.folder.rename(dead)
        remove_tree(dead)

    def remove_environment(self, uid: str) -> int:
        """Remove all executions of an environment; returns how many."""
        count = len(self.ids(uid))
        dead = self._root / f"{_DEAD}{secrets.token_hex(8)}"
        try:
            self.environment(uid).rename(dead)
        except FileNotFoundError:
            return 0
        remove_tree(dead)
        return count

    def sweep(self) -> None:
        """Remove what killed executors left half made or half removed."""
        for parent in (self._root, *(self.environment(uid) for uid in self.environments())):
            for each in parent.iterdir():
                half_made = each.name.startswith(_NEW) and abandoned(each, self._making)
                if half_made or each.name.startswith(_DEAD):
                    remove_tree(each)

    def environment(self, uid: str) -> Path:
        """The directory of an environment. Raises ValueError for what is no uid."""
        if not valid_uid(uid):
            raise ValueError("not the uid of an environment")
        return self._root / uid

    def _is_there(self, record: Record, lock: int) -> bool:
        """Whether the directory that is held still has its name."""
        try:
            found = record.folder.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(lock))
