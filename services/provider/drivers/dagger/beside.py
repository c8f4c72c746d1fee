"""Sandboxes of this node, one beside each environment that is active: in its files requests about
files look. No command runs in one."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

from agent.client import AgentClient
from agent.launcher_client import LauncherClient, LauncherError, PeerGone, PeerTooOld
from agent.protocol import Facts, Mode, SandboxSpec
from servicekit.errors import Unavailable
from services.provider.drivers.places import Places
from services.provider.drivers.records import Record, Records
from services.provider.errors import ActivationFailed

_log = logging.getLogger(__name__)

_CONNECTIONS: Final = 16
"""To the launcher at once: see `drivers.local`."""


class Beside:
    """Made by the launcher at that socket. Each ends when nobody was connected to it for
    `idle_timeout`, as the stand-in is while its environment is active."""

    def __init__(
        self, launcher: Path, places: Places, records: Records, idle_timeout: timedelta
    ) -> None:
        self._launcher = launcher
        self._idle_timeout = idle_timeout.total_seconds()
        self._connections = asyncio.Semaphore(_CONNECTIONS)
        self._places = places
        self._records = records

    async def facts(self) -> Facts:
        async with self._connected() as launcher:
            return await launcher.facts()

    async def start(self, record: Record) -> None:
        """Raises ActivationFailed, Unavailable."""
        async with self._connected() as launcher:
            facts = await launcher.facts()
            owner = facts.sandbox_uid if facts.mode is Mode.ROOT else None
            self._records.make_folders(record.uid, owner)
            status = await launcher.start(self._sandbox(record, facts))
            try:
                async with AgentClient.connect(Path(status.socket), facts.sandbox_uid):
                    return
            except (PeerGone, PeerTooOld) as error:
                said = await launcher.last_words(record.uid) or str(error)
                raise ActivationFailed("the sandbox did not start", cause=said[:500]) from error

    async def end(self, uid: str) -> None:
        async with self._connected() as launcher:
            await launcher.kill(uid)

    def _sandbox(self, record: Record, facts: Facts) -> SandboxSpec:
        folder = self._records.folder(record.uid)
        placed = self._places.place(record.uid, record.worktree, facts)
        return SandboxSpec(
            uid=record.uid,
            worktree=placed.tree,
            lock=placed.lock,
            home=str(folder / "home"),
            tmp=str(folder / "tmp"),
            mounts=placed.mounts,
            idle_timeout_seconds=self._idle_timeout,
            beside=True,
        )

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[LauncherClient]:
        try:
            async with self._connections, LauncherClient.connect(self._launcher) as launcher:
                yield launcher
        except (PeerGone, PeerTooOld) as error:
            raise Unavailable("the launcher is away", service="launcher") from error
        except LauncherError as error:
            _log.warning("the launcher refuses: %s", error)
            raise Unavailable("the launcher failed", service="launcher") from error
