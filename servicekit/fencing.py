"""Keeps out whoever lost its lease: a tool acts for the latest holder only.

The registry gives each claim on an environment a larger fencing token than any before.
A holder sends it, with the uid it is of, in the metadata of each call. A tool keeps the
highest one that it acted on, by uid, and refuses a lower one, for good: so a gateway that
was paused for longer than its lease makes and removes nothing when it wakes up.

A call without a token is served: it is an operator's, an older gateway's, or about what
has no record and so no lease.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final, Self, TypeVar

from cove.errors.v1.errors_pb2 import ErrorReason
from servicekit import calls, sqlite_file
from servicekit.calls import Fence
from servicekit.config import StartError
from servicekit.errors import Aborted, ResourceExhausted
from servicekit.room import Room
from servicekit.sqlite_file import Opened

_log = logging.getLogger(__name__)

R = TypeVar("R")

_VERSION: Final = 1
_SWEEP_EVERY: Final = 600.0
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS fence (
    uid TEXT PRIMARY KEY, token INTEGER NOT NULL, time REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS fence_time ON fence (time);
"""


class LeaseTaken(Aborted):
    """Another holder has the environment since."""

    reason = ErrorReason.ERROR_REASON_LEASE_LOST


class FencesFull(ResourceExhausted):
    reason = ErrorReason.ERROR_REASON_DISK_FULL


class FencesTooNew(StartError):
    """The file was written by a newer version of this program."""


class Fences:
    """The fences of one tool: one SQLite file, one thread that uses it."""

    def __init__(
        self,
        db: sqlite3.Connection,
        room: Room,
        in_use: Callable[[str], bool],
        kept: timedelta,
        now: Callable[[], float],
    ) -> None:
        self._db = db
        self._room = room
        self._in_use = in_use
        self._kept = kept.total_seconds()
        self._now = now
        self._thread = ThreadPoolExecutor(1, "fences")
        self._going: dict[str, dict[asyncio.Task[object], int]] = {}
        self._waiting: list[tuple[Fence, asyncio.Future[int]]] = []
        self._writing: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        in_use: Callable[[str], bool],
        *,
        kept: timedelta = timedelta(days=30),
        now: Callable[[], float] = time.time,
    ) -> AsyncIterator[Self]:
        """A token is kept for as long as the tool has something `in_use` of its uid, and
        then for `kept`. Raises `FencesTooNew`."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _opened(path) as (db, room):
            fences = cls(db, room, in_use, kept, now)
            sweeper = asyncio.create_task(fences._sweep_for_ever())
            try:
                yield fences
            finally:
                sweeper.cancel()
                await asyncio.gather(sweeper, return_exceptions=True)
                await asyncio.to_thread(fences._thread.shutdown)

    async def guard(self, uid: str, run: Callable[[], Awaitable[R]], *, ends: bool = False) -> R:
        """What `run` answers, unless a later holder of `uid` was here.

        Whatever an earlier holder has going on for the uid is over before `run` begins;
        where that `ends` what is there, it is not waited for but broken off. Raises
        `LeaseTaken`, also when a later holder comes meanwhile and ends it.
        """
        fence = calls.current().fence
        if fence is None or fence.uid != uid:
            return await run()
        task = asyncio.create_task(self._admitted(fence, run, ends=ends))
        self._going.setdefault(uid, {})[task] = fence.token
        task.add_done_callback(lambda done: self._ended(uid, done))
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if task.cancelled() and not (current and current.cancelling()):
                raise _taken(fence) from None
            raise

    async def _admitted(self, fence: Fence, run: Callable[[], Awaitable[R]], *, ends: bool) -> R:
        if await self._advance(fence) > fence.token:
            raise _taken(fence)
        # Lower ones that come from now on are refused.
        going = self._going[fence.uid].items()
        earlier = [task for task, token in going if token < fence.token]
        if ends:
            for task in earlier:
                task.cancel()
        if earlier:
            await asyncio.wait(earlier)
        return await run()

    def _ended(self, uid: str, task: "asyncio.Task[object]") -> None:
        going = self._going[uid]
        del going[task]
        if not going:
            del self._going[uid]

    async def _advance(self, fence: Fence) -> int:
        """The highest token of the uid, when that is on the disk; those that come at once
        share a commit."""
        highest: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((fence, highest))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        return await highest

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                found = await loop.run_in_executor(self._thread, self._write, [f for f, _ in batch])
            except Exception as error:
                for _, highest in batch:
                    if not highest.done():
                        highest.set_exception(error)
                continue
            for (_, highest), token in zip(batch, found, strict=True):
                if not highest.done():
                    highest.set_result(token)
        self._writing = None

    def _write(self, fences: list[Fence]) -> list[int]:
        now = self._now()
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                return [self._raised(fence, now) for fence in fences]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            raise FencesFull("no space is left to remember who holds a lease") from error

    def _raised(self, fence: Fence, now: float) -> int:
        row = self._db.execute("SELECT token FROM fence WHERE uid = ?", (fence.uid,)).fetchone()
        if row is not None and row[0] >= fence.token:
            return int(row[0])
        self._db.execute(
            "INSERT OR REPLACE INTO fence VALUES (?, ?, ?)", (fence.uid, fence.token, now)
        )
        return fence.token

    async def sweep(self) -> int:
        """Forget what was kept long enough; returns how many."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._sweep)

    def _sweep(self) -> int:
        now = self._now()
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            old = self._db.execute(
                "SELECT uid FROM fence WHERE time <= ? LIMIT 1000", (now - self._kept,)
            ).fetchall()
            gone = [(uid,) for (uid,) in old if not self._in_use(uid)]
            self._db.executemany(
                "UPDATE fence SET time = ? WHERE uid = ?", [(now, u) for (u,) in old]
            )
            self._db.executemany("DELETE FROM fence WHERE uid = ?", gone)
        self._room.keep()
        return len(gone)

    async def _sweep_for_ever(self) -> None:
        while True:
            with suppress(sqlite3.Error, OSError):
                await self.sweep()
            await asyncio.sleep(_SWEEP_EVERY)


def _opened(path: Path) -> AbstractContextManager[Opened]:
    return sqlite_file.opened(
        path, schema=_SCHEMA, version=_VERSION, synchronous="FULL", too_new=FencesTooNew
    )


def _taken(fence: Fence) -> LeaseTaken:
    return LeaseTaken("another holder has taken the environment since", uid=fence.uid)
