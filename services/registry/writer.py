"""One thread that writes, and one commit for all who wait.

While a commit is on its way to the disk the next writes gather; they share the commit
after it. Each has a savepoint of its own, so that one which fails takes nothing of the
others with it.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, NamedTuple, TypeVar

from services.registry.errors import DiskFull, ShuttingDown

T = TypeVar("T")

_MAX_GROUP: Final = 512


class _Job(NamedTuple):
    work: Callable[[sqlite3.Connection], Any]
    future: "asyncio.Future[Any]"


class Writer(Generic[T]):
    """Runs pieces of work, each of which returns a `T`, on one connection.

    `committed` is called on the event loop, in the order of the commits, with what
    the work of one commit returned, before anyone who waits for it goes on.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        committed: Callable[[Sequence[T]], None],
        *,
        max_group: int = _MAX_GROUP,
    ) -> None:
        self._db = db
        self._committed = committed
        self._max_group = max_group
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self.commits = 0
        # Nothing is lost when it dies with the process: what was told was durable.
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Returns once the work is durable; raises what it raised, or `DiskFull`.

        A caller who is cancelled meanwhile does not know whether it was done.
        """
        if self._closed:
            raise ShuttingDown("the registry is stopping")
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(work, future))
        return await future

    async def close(self) -> None:
        """Finish what is waiting, then end the thread."""
        self._closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (first := self._jobs.get()) is not None:
            group = [first]
            last = False
            try:
                while len(group) < self._max_group and not last:
                    job = self._jobs.get_nowait()
                    if job is None:
                        last = True
                    else:
                        group.append(job)
            except Empty:
                pass
            results = self._commit(group)
            self._loop.call_soon_threadsafe(self._finish, group, results)
            if last:
                return

    def _commit(self, group: Sequence[_Job]) -> list[Any]:
        """What each job returned, or the exception that it ended with."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            results = [self._attempt(job) for job in group]
            self._db.execute("COMMIT")
        except Exception as error:  # Nobody must wait for ever.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            return [_told(error)] * len(group)
        self.commits += 1
        return results

    def _attempt(self, job: _Job) -> Any:
        self._db.execute("SAVEPOINT job")
        try:
            result = job.work(self._db)
        except Exception as error:  # Its caller gets it; the others are not concerned.
            if not self._db.in_transaction:  # SQLite gave up the whole of it.
                raise
            self._db.execute("ROLLBACK TO job")
            result = _told(error)
        self._db.execute("RELEASE job")
        return result

    def _finish(self, group: Sequence[_Job], results: Sequence[Any]) -> None:
        self._committed([result for result in results if not isinstance(result, Exception)])
        for job, result in zip(group, results, strict=True):
            if job.future.done():  # Its caller is gone.
                continue
            if isinstance(result, Exception):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)


def _told(error: Exception) -> Exception:
    """The failure as the caller is told of it."""
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return DiskFull("the disk of the registry is full")
    return error
