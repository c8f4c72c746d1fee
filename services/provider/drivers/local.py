"""The driver `local`: sandboxes on this node, made by its launcher."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, cast

from agent.client import AgentClient
from agent.launcher_client import LauncherClient, LauncherError, PeerGone, PeerTooOld, ProbeFailed
from agent.protocol import Facts, SandboxSpec, State
from servicekit import calls
from servicekit.errors import Unavailable
from services.provider.capabilities import Capability
from services.provider.driver import Spec
from services.provider.drivers.making import Sandboxes
from services.provider.drivers.records import Record
from services.provider.errors import ActivationFailed, SandboxUnavailable

_log = logging.getLogger(__name__)

_ATTEMPTS: Final = 3
"""Starts of a sandbox whose agent was just going idle."""
_CONNECTIONS: Final = 40
"""To the launcher at once, which sends away who comes when it has 64: others wait for theirs."""


class Launched:
    """Has the launcher make sandboxes."""

    name: Final = "local"
    can: Final = frozenset({Capability.OUTLIVES_SERVICES})

    def __init__(self, launcher: Path) -> None:
        self._launcher = launcher
        self._connections = asyncio.Semaphore(_CONNECTIONS)
        self._proven: Facts | None = None
        self._probing: asyncio.Task[Facts] | None = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[LauncherClient]:
        try:
            async with self._connections, LauncherClient.connect(self._launcher) as launcher:
                yield launcher
        except (PeerGone, PeerTooOld) as error:
            self._proven = None  # The next launcher may be able to do something else.
            raise Unavailable("the launcher is away", service="launcher") from error
        except LauncherError as error:
            _log.warning("the launcher refuses: %s", error)  # It may name what is this machine's.
            raise Unavailable("the launcher failed", service="launcher") from error

    async def probed(self) -> Facts:
        """What the launcher can do, after a sandbox was really made once, for all who ask."""
        if self._proven:
            return self._proven
        if self._probing is None:
            with calls.detached():
                self._probing = asyncio.create_task(self._probe())
            self._probing.add_done_callback(self._probe_ended)
        return await asyncio.shield(self._probing)

    async def told(self) -> tuple[Facts, str]:
        try:
            return await self.probed(), ""
        except SandboxUnavailable as error:
            async with self.connected() as launcher:
                return await launcher.facts(), error.remedy

    async def check(self, spec: Spec) -> None:
        """All that a spec can say is checked against Facts."""

    async def chosen(self, record: Record) -> Record:
        return record

    async def start(self, sandboxes: Sandboxes, record: Record, spec: SandboxSpec) -> bool:  # noqa: ARG002
        launcher = cast("LauncherClient", sandboxes)
        owner, said = (await launcher.facts()).sandbox_uid, ""
        for _ in range(_ATTEMPTS):
            before = await launcher.inspect(spec.uid)
            status = await launcher.start(spec)
            try:
                async with AgentClient.connect(Path(status.socket), owner):
                    return before.state is not State.RUNNING
            except (PeerGone, PeerTooOld) as error:
                said = await launcher.last_words(spec.uid) or str(error)
        raise ActivationFailed("the sandbox did not start", cause=said[:500])

    async def _probe(self) -> Facts:
        async with self.connected() as launcher:
            try:
                self._proven = await launcher.probe()
            except ProbeFailed as error:
                raise SandboxUnavailable(
                    "no sandbox can be made on this host",
                    remedy=str(error),
                    cause=str(error)[:500],
                ) from error
            return self._proven

    def _probe_ended(self, task: "asyncio.Task[Facts]") -> None:
        self._probing = None
        if not task.cancelled():
            task.exception()  # Whoever waited may be gone: that is no error.
