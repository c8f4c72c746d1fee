"""The executions of one environment: each is started once, and remembered for a while."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import Final

from agent import formats, frames
from agent.inside.connection import Connection
from agent.inside.log import Log
from agent.standin.runner import Asked, Ending, Output, Refused, Runner

_log = logging.getLogger(__name__)

_MAX_RUNNING: Final = 256
_REMEMBERED: Final = 256
_LATE: Final = 0.05
"""Seconds between two looks at whether a command has begun, for its timeout."""

Waiter = tuple[Connection, int]


class Execution:
    """One command."""

    def __init__(self, asked: Asked, log: Log) -> None:
        self.asked = asked
        self.log = log
        self.output = Output(log)
        self.start_ns = time.time_ns()
        self.ending: Ending | None = None
        """Why it was ended, when it was."""
        self.task: asyncio.Task[None] | None = None
        self.ended = False
        self.waiting: list[Waiter] = []
        """Who is told when it is over."""

    def end(self, ending: Ending) -> None:
        """End it at once; the first reason stands."""
        if self.ending is None and not self.ended and self.task:
            self.ending = ending
            self.task.cancel()


class Leaving(Exception):
    """Nothing is started here any more."""


class Executions:
    """Starts and ends them. `idle` is called whenever nothing runs any more, and `over` for each
    who waited for an end."""

    def __init__(
        self,
        uid: str,
        runner: Runner,
        idle: Callable[[], None],
        over: Callable[[Connection, int], None],
    ) -> None:
        self._uid = uid
        self._runner = runner
        self._idle = idle
        self._over = over
        self._shut = False
        self._all: dict[str, Execution] = {}
        self._checking: dict[str, asyncio.Future[None]] = {}

    @property
    def running(self) -> int:
        return len(self._checking) + sum(not each.ended for each in self._all.values())

    async def start(self, asked: Asked, limit: int, log: int, result: int) -> bool:
        """Start one, or find the one of that key: then true. Takes the descriptors over.

        Raises Refused, Leaving. `limit`: bytes of output that are recorded, 0 is all.
        """
        try:
            while checking := self._checking.get(asked.key):
                await asyncio.wait((checking,))
            if asked.key in self._all:
                return True
            if self._shut:
                raise Leaving
            if self.running >= _MAX_RUNNING:
                raise Refused(frames.LIMIT_REACHED, "too many executions")
            if os.fstat(log).st_size:
                raise Refused(frames.ALREADY_STARTED, "the log is not empty")
            self._checking[asked.key] = asyncio.get_running_loop().create_future()
            try:
                await self._runner.check(self._uid, asked)
                if self._shut:
                    raise Leaving
                self._begin(asked, limit, log, result)
            finally:
                self._checking.pop(asked.key).set_result(None)
            log = result = -1
            return False
        finally:
            for descriptor in (log, result):
                if descriptor >= 0:
                    os.close(descriptor)

    def shut(self) -> None:
        """Start nothing more: what runs goes on."""
        self._shut = True

    def find(self, key: str) -> Execution:
        """Raises Refused."""
        if key not in self._all:
            raise Refused(frames.EXECUTION_NOT_FOUND, "no such execution")
        return self._all[key]

    def rows(self) -> list[bytes | int]:
        """As the answer to LIST has them. There are no pids to tell."""
        return [
            field
            for each in self._all.values()
            for field in (
                each.asked.key.encode(),
                int(each.ended),
                0,
                each.start_ns,
                each.log.offset,
            )
        ]

    async def cancel(self, by: bytes) -> None:
        """End all that runs, on behalf of somebody."""
        running = [each for each in self._all.values() if not each.ended and each.task]
        for each in running:
            each.end(Ending(kind=formats.EXIT_CANCELLED, number=9, text=by))
        if running:
            await asyncio.wait([each.task for each in running if each.task])

    async def close(self) -> None:
        """End all that runs, whose executions are lost then."""
        tasks = [each.task for each in self._all.values() if each.task and not each.ended]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _begin(self, asked: Asked, limit: int, log: int, result: int) -> None:
        written = Log(log, result)
        written.limit = limit
        written.start(asked.key.encode())
        execution = Execution(asked, written)
        ended = [key for key, each in self._all.items() if each.ended]
        for key in ended[: max(0, len(ended) - _REMEMBERED)]:
            del self._all[key]
        self._all[asked.key] = execution
        execution.task = asyncio.create_task(self._run(execution))

    async def _run(self, execution: Execution) -> None:
        """Run it and write its result. Without one, if it or we fail, it counts as lost."""
        late = asyncio.create_task(_expire(execution))
        ending: Ending | None = None
        try:
            ending = await self._runner.run(self._uid, execution.asked, execution.output)
        except asyncio.CancelledError:
            ending = execution.ending
        except Exception as error:
            _log.warning("an execution is lost: %s: %s", type(error).__name__, error)
        finally:
            late.cancel()
            if ending and execution.log.exceeded:
                ending = Ending(kind=formats.EXIT_LIMITED, text=frames.OUTPUT)
            if ending:
                times = execution.start_ns, time.time_ns()
                body = (ending.kind, 0, ending.number, *times, 0, 0, 0)
                execution.log.finish(body, ending.text)
            execution.log.close()
            execution.ended = True
            waiting, execution.waiting = execution.waiting, []
            for client, number in waiting:
                self._over(client, number)
            if not self.running:
                self._idle()


async def _expire(execution: Execution) -> None:
    """Where the runner has not ended it in time, end it."""
    asked = execution.asked
    if not asked.timeout:
        return
    while not execution.output.began:  # noqa: ASYNC110 # A second or so may pass in the queue.
        await asyncio.sleep(_LATE)
    await asyncio.sleep(asked.timeout + asked.grace)
    execution.end(Ending(kind=formats.EXIT_TIMED_OUT, number=9, text=b"timeout"))
