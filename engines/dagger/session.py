"""One `dagger session` process, and the connection to it.

The process is ours: its standard error is always read, as a full pipe would stop it; it ends when
its standard input does, and so with us; whatever fails while it starts, nothing of it is left.
"""

import asyncio
import json
import os
import signal
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Self

import dagger

from engines.dagger.connection import Connection
from engines.dagger.errors import EngineDefect, EngineLost, EngineUnavailable, failure
from engines.dagger.preview import Previews
from engines.dagger.settings import Settings

_CLOSE: Final = 15.0
_TAIL: Final = 40
_PASSED: Final = ("PATH", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "KUBECONFIG")
_SILENT: Final = {
    "DAGGER_SILENT": "1",
    "DAGGER_NO_NAG": "1",
    "DAGGER_NO_UPDATE_CHECK": "1",
    "DO_NOT_TRACK": "1",
    "NO_COLOR": "1",
}
"""Silent, it keeps no telemetry in memory, and offers no terminal."""


class Session:
    """Counts its uses; who has it decides when it is old. Made by `open`."""

    def __init__(self, process: Process, said: deque[str], drained: "asyncio.Task[None]") -> None:
        self._process = process
        self._said = said
        self._drained = drained
        self._connection: Connection | None = None
        self._previews: Previews | None = None
        self.lost = asyncio.Event()
        """Set when the process has ended, or its engine does not answer any more."""
        self.users = 0
        self.operations = 0
        self.born = time.monotonic()
        self._watching = asyncio.create_task(self._watch())

    @classmethod
    async def open(cls, settings: Settings, address: str, env: Mapping[str, str]) -> Self:
        """Raises EngineUnavailable, EngineLost. Leaves no process when it fails."""
        cli = settings.usable()
        home = settings.state / "home"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        passed = {name: env[name] for name in _PASSED if name in env}
        try:
            process = await asyncio.create_subprocess_exec(
                str(cli),
                "session",
                "--label",
                "dagger.io/sdk.name:python",
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                start_new_session=True,
                cwd=settings.state,
                env={
                    **passed,
                    **_SILENT,
                    "HOME": str(home),
                    "XDG_STATE_HOME": str(home / "state"),
                    "XDG_CACHE_HOME": str(home / "cache"),
                    "_EXPERIMENTAL_DAGGER_RUNNER_HOST": address,
                },
            )
        except OSError as error:
            raise EngineUnavailable(
                f"the Dagger CLI cannot be started: {error.strerror}",
                "Put one for this machine in its place.",
            ) from error
        said: deque[str] = deque(maxlen=_TAIL)
        session = cls(process, said, asyncio.create_task(_drain(process, said)))
        try:
            async with asyncio.timeout(settings.start):
                await session._greet(settings.calls)
        except TimeoutError:
            await session.close(kill=True)
            raise EngineLost(f"no engine answers at {_shown(address)}") from None
        except BaseException:
            await session.close(kill=True)
            raise
        return session

    @property
    def client(self) -> dagger.Client:
        client: dagger.Client = dagger.Client.from_connection(self.connection)
        return client

    @property
    def connection(self) -> Connection:
        assert self._connection is not None  # Nobody has it before `open` returns.
        return self._connection

    @property
    def previews(self) -> Previews:
        """What its commands write, live."""
        if self._previews is None:
            self._previews = Previews(self.connection)
        return self._previews

    @property
    def pid(self) -> int:
        return self._process.pid

    async def close(self, *, kill: bool = False) -> None:
        """End it. Returns when nothing of it is left."""
        self.lost.set()
        self._watching.cancel()
        if self._previews:
            await self._previews.close()
        if self._connection:
            await self._connection.close()
        if self._process.stdin:
            self._process.stdin.close()
        if not kill:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _CLOSE)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        self._drained.cancel()
        await asyncio.wait((self._drained, self._watching))

    async def _greet(self, calls: int) -> None:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        try:
            told = json.loads(line)
            port, token = int(told["port"]), str(told["session_token"])
        except (ValueError, KeyError, TypeError):
            await asyncio.wait((self._drained,), timeout=1.0)
            said = " ".join(self._said)[-300:]
            if line:
                raise EngineUnavailable(
                    "the Dagger CLI does not speak as one",
                    "Put the `dagger` of the engine's version in its place.",
                ) from None
            known = failure(said)
            told_why = said or "it said nothing"
            raise EngineLost(f"no session: {told_why}") from (
                None if isinstance(known, EngineDefect) else known
            )
        self._connection = Connection(port, token, calls)
        await self._connection.introspect()

    async def _watch(self) -> None:
        await self._process.wait()
        self.lost.set()


async def _drain(process: Process, said: deque[str]) -> None:
    assert process.stderr is not None
    while data := await process.stderr.read(4096):
        said.append(data.decode(errors="replace").strip())


def _shown(address: str) -> str:
    """Without what may be a secret in it."""
    return address.partition("?")[0]
