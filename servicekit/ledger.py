"""Memory of requests: a mutator that is repeated answers what it answered first.

Not state: the work itself must be safe to run again, as a crash between the
work and its entry makes a retry do. Entries are with the kernel before the
answer leaves, so the kill of any process loses none; a loss of power may take
the latest, after which a retry runs again. They are swept after a day.
"""

import asyncio
import hashlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self, TypeAlias, TypeVar

from google.protobuf.message import Message

from cove.errors.v1.errors_pb2 import ErrorReason
from servicekit import calls, sqlite_file
from servicekit.config import StartError
from servicekit.errors import AlreadyExists, ResourceExhausted, ServiceError
from servicekit.room import Room
from servicekit.sqlite_file import Opened

_log = logging.getLogger(__name__)

R = TypeVar("R", bound=Message)
T = TypeVar("T")
Key: TypeAlias = tuple[str, str, str, str]

_VERSION: Final = 1
_SWEEP_EVERY: Final = 600.0
_PART: Final = 500
"""Entries that are forgotten at once."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entry (
    tenant TEXT, principal TEXT, rpc TEXT, request_id TEXT,
    digest BLOB NOT NULL, response BLOB NOT NULL, created REAL NOT NULL,
    PRIMARY KEY (tenant, principal, rpc, request_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entry_created ON entry (created);
"""


class RequestIdReused(AlreadyExists):
    reason = ErrorReason.ERROR_REASON_REQUEST_ID_REUSED


class LedgerFull(ResourceExhausted):
    reason = ErrorReason.ERROR_REASON_DISK_FULL


class LedgerTooNew(StartError):
    """The file was written by a newer version of this program."""


@dataclass(frozen=True, slots=True)
class _Running:
    digest: bytes
    task: "asyncio.Task[Any]"


class Ledger:
    """The ledger of one tool: one SQLite file, one thread that uses it."""

    def __init__(
        self, db: sqlite3.Connection, room: Room, kept: timedelta, now: Callable[[], float]
    ) -> None:
        self._db = db
        self._room = room
        self._kept = kept.total_seconds()
        self._now = now
        self._thread = ThreadPoolExecutor(1, "ledger")
        self._running: dict[Key, _Running] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        *,
        kept: timedelta = timedelta(hours=24),
        grace: timedelta = timedelta(seconds=10),
        now: Callable[[], float] = time.time,
    ) -> AsyncIterator[Self]:
        """Raises `LedgerTooNew`. On leaving, work that was begun has the grace to end."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _opened(path) as (db, room):
            ledger = cls(db, room, kept, now)
            sweeper = asyncio.create_task(ledger._sweep_for_ever())
            try:
                yield ledger
            finally:
                sweeper.cancel()
                await ledger._settle(grace)
                await asyncio.to_thread(ledger._thread.shutdown)

    async def once(self, request: Any, response: type[R], run: Callable[[], Awaitable[R]]) -> R:
        """Answer `request` as it was answered first, or by `run`.

        Raises `RequestIdReused`, and what `run` raises, of which nothing is kept. A
        request without an id just runs. `run` goes on when its caller leaves.
        """
        if not request.request_id:
            return await run()
        call = calls.current()
        key = (call.identity.tenant, call.identity.principal, call.method, request.request_id)
        digest = _digest(request)
        running = self._running.get(key)
        if running is None:
            with calls.detached():
                task = asyncio.create_task(self._answer(key, digest, response, run))
            running = self._running[key] = _Running(digest, task)
            task.add_done_callback(lambda done: self._ended(key, done))
        elif running.digest != digest:
            raise _reused(key)
        answer: R = await asyncio.shield(running.task)
        return answer

    async def sweep(self) -> int:
        """Forget what is too old; returns how many.

        In parts: all at once, after a day without the service, would hold up what comes, and need
        more of a full disk than is kept free for it.
        """
        oldest, count = self._now() - self._kept, 0
        while part := await self._in_thread(lambda: self._forget(oldest)):
            count += part
        return count

    async def _answer(
        self, key: Key, digest: bytes, response: type[R], run: Callable[[], Awaitable[R]]
    ) -> R:
        found = await self._in_thread(lambda: self._read(key))
        if found is None:
            made = await run()
            data = made.SerializeToString()
            await self._in_thread(lambda: self._write(key, digest, data))
            return made
        if found[0] != digest:
            raise _reused(key)
        return response.FromString(found[1])

    def _read(self, key: Key) -> tuple[bytes, bytes] | None:
        row: tuple[bytes, bytes] | None = self._db.execute(
            "SELECT digest, response FROM entry WHERE tenant = ? AND principal = ? AND rpc = ?"
            " AND request_id = ? AND created > ?",
            (*key, self._now() - self._kept),
        ).fetchone()
        return row

    def _write(self, key: Key, digest: bytes, response: bytes) -> None:
        try:
            self._db.execute(
                "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*key, digest, response, self._now()),
            )
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            raise LedgerFull("no space is left to remember the request") from error

    def _forget(self, oldest: float) -> int:
        return self._db.execute(
            "DELETE FROM entry WHERE (tenant, principal, rpc, request_id) IN"
            " (SELECT tenant, principal, rpc, request_id FROM entry WHERE created <= ? LIMIT ?)",
            (oldest, _PART),
        ).rowcount

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _ended(self, key: Key, task: "asyncio.Task[Any]") -> None:
        del self._running[key]
        if task.cancelled() or task.exception() is None:
            return
        if not isinstance(task.exception(), ServiceError):
            _log.warning("a request failed, maybe after its caller left", exc_info=task.exception())

    async def _settle(self, grace: timedelta) -> None:
        tasks = [running.task for running in self._running.values()]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=grace.total_seconds())
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _sweep_for_ever(self) -> None:
        while True:
            with suppress(sqlite3.Error, OSError):
                await self.sweep()
                await self._in_thread(self._room.keep)
            await asyncio.sleep(_SWEEP_EVERY)


def _opened(path: Path) -> AbstractContextManager[Opened]:
    return sqlite_file.opened(
        path, schema=_SCHEMA, version=_VERSION, synchronous="NORMAL", too_new=LedgerTooNew
    )


def _reused(key: Key) -> RequestIdReused:
    return RequestIdReused("the request id was used for another request", request_id=key[3])


def _digest(request: Message) -> bytes:
    """What the request says. Secrets are no part of it: a retry may bring fresh ones."""
    said: Any = type(request)()
    said.CopyFrom(request)
    said.ClearField("request_id")
    _clear_secrets(said)
    return hashlib.sha256(said.SerializeToString(deterministic=True)).digest()


def _clear_secrets(message: Message) -> None:
    for field, value in message.ListFields():
        if field.GetOptions().debug_redact:
            message.ClearField(field.name)
        elif field.message_type is None:
            continue
        elif field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type:
                for each in value.values():
                    _clear_secrets(each)
        else:
            for each in value if field.is_repeated else (value,):
                _clear_secrets(each)
