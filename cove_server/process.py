"""One service of the suite: a process that is started again when it dies."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cove_server.errors import CannotStart

_log = logging.getLogger(__name__)

_STEADY: Final = 10.0
"""Seconds after which a process that dies is started again at once."""

_BACKOFF: Final = (0.2, 5.0)
_STOP: Final = 15.0
"""Seconds that a process gets to end after SIGTERM."""

_MISCONFIGURED: Final = 2


@dataclass(frozen=True, slots=True)
class Program:
    """What a service is started as."""

    name: str
    module: str
    env: Mapping[str, str]
    lock: int
    """A descriptor that it holds for as long as it lives."""


class Service:
    """Keeps one program running until it is told to stop."""

    def __init__(self, program: Program) -> None:
        self.name = program.name
        self._program = program
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()

    async def start(self) -> Sequence[str]:
        """Start it; returns the addresses it serves. Raises `CannotStart` if it ends instead."""
        self._task = asyncio.create_task(self._keep())
        return await asyncio.shield(self._ready)

    async def stop(self) -> None:
        """Have it end in its own way; kill it when it does not."""
        self._stopping.set()
        self._send(signal.SIGTERM)
        if self._task is None:
            return
        done, _ = await asyncio.wait([self._task], timeout=_STOP)
        if not done:
            _log.warning("%s does not end, killing it", self.name)
            self.kill()
        await asyncio.wait([self._task])
        if not self._ready.done():
            self._ready.cancel()
        elif not self._ready.cancelled():
            self._ready.exception()

    def kill(self) -> None:
        """End it at once."""
        self._stopping.set()
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _keep(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            status = await self._run()
            if self._stopping.is_set():
                return
            if not self._ready.done():
                code = _MISCONFIGURED if status == _MISCONFIGURED else 1
                reason = f"{self.name} ended with status {status} before it was ready"
                self._ready.set_exception(CannotStart(reason, "Its log says why.", code))
                return
            if time.monotonic() - began > _STEADY:
                failures = 0
            least, most = _BACKOFF
            delay = min(most, least * 2 ** (failures - 1)) if failures else 0
            failures += 1
            _log.warning("%s ended with status %s, starting it again", self.name, status)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()

    async def _run(self) -> int:
        program = self._program
        argv = ["-P", "-m", "cove_server.child", str(os.getpid()), str(program.lock)]
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            *argv,
            program.module,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env=program.env,
            pass_fds=(program.lock,),
            process_group=0,  # Ctrl-C reaches `cove up` alone, which ends them in order.
        )
        assert process.stdout
        if self._stopping.is_set():
            self._send(signal.SIGTERM)
        while line := await process.stdout.readline():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                addresses = json.loads(line)["addresses"]
                if not self._ready.done():
                    self._ready.set_result(addresses)
        return await process.wait()
