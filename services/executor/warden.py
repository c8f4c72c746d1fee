"""Ends what meets a limit that the kernel does not end anybody for.

Those are the processor time of all processes of an execution together, the disk of an environment,
and processes of which one more is asked for again and again. It looks from time to time, so what
is quick gets further than the limit.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from agent import frames
from agent.client import AgentError, PeerGone, PeerTooOld
from servicekit.taken import taken
from services.executor.agents import Agents
from services.executor.background import Background
from services.executor.groups import Groups
from services.executor.keeping import Keeper
from services.executor.record import Record
from services.executor.store import Store

_log = logging.getLogger(__name__)

_LOOK: Final = 0.5
_SHARE: Final = 20
"""So many times as long as it takes to look at a disk, the next look at it waits."""
_REFUSALS: Final = 1000
"""Processes that were refused to one execution, after which it is a fork bomb."""
_PARTS: Final = (
    ("git", "worktrees", "{}", "upper"),
    ("git", "worktrees", "{}", "tree"),
    ("provider", "environments", "{}", "home"),
    ("provider", "environments", "{}", "tmp"),
)
"""What an environment has on disk of its own, below the state directory."""


class _Disk:
    """One environment's."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.last: int | None = None
        self.due = 0.0


class Warden:
    def __init__(
        self,
        *,
        store: Store,
        agents: Agents,
        groups: Groups,
        keeper: Keeper,
        background: Background,
        state: Path,
    ) -> None:
        self._store = store
        self._agents = agents
        self._groups = groups
        self._keeper = keeper
        self._background = background
        self._state = state
        self._disks: dict[str, _Disk] = {}
        self._ending: set[str] = set()

    async def run(self) -> None:
        """Look for ever."""
        await self._recall()
        # Apart, as a disk with very many files takes long.
        await asyncio.gather(self._repeat(self._executions), self._repeat(self._environments))

    async def _repeat(self, look: Callable[[Sequence[Record]], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            try:
                await look(self._keeper.running())
            except OSError:
                _log.exception("what is used cannot be told")

    async def _recall(self) -> None:
        """What an earlier executor started may go on in the background."""
        for uid in await asyncio.to_thread(self._store.environments):
            if self._agents.active(uid):
                for record in await asyncio.to_thread(self._store.records, uid):
                    self._know(record)

    def _know(self, record: Record) -> None:
        if record.disk_bytes:
            self._disks.setdefault(record.uid, _Disk(record.disk_bytes)).limit = record.disk_bytes

    async def _executions(self, running: Sequence[Record]) -> None:
        found = await asyncio.to_thread(self._exceeding, running) if self._groups.counts else []
        for record, which in found:
            self._end(record.uid, record.key, which)

    def _exceeding(self, running: Iterable[Record]) -> list[tuple[Record, bytes]]:
        found = []
        for record in running:
            usage = self._groups.usage(self._store.groups(record))
            cpu_ns = record.spec.limits.cpu_time_ns
            if usage.forks_refused >= _REFUSALS:
                found.append((record, frames.PIDS))
            elif cpu_ns and usage.cpu_us * 1000 > cpu_ns:
                found.append((record, frames.CPU))
        return found

    async def _environments(self, running: Iterable[Record]) -> None:
        for record in running:
            self._know(record)
        for uid, disk in list(self._disks.items()):
            now = asyncio.get_running_loop().time()
            if not self._agents.active(uid):
                del self._disks[uid]
            elif now >= disk.due:
                try:
                    size = await asyncio.to_thread(self._taken, uid)
                except OSError:  # What one environment does is nothing to the others.
                    _log.exception("the disk of an environment cannot be looked at")
                    disk.due = now + _SHARE
                    continue
                later = asyncio.get_running_loop().time()
                disk.due = later + _SHARE * (later - now)
                # Who makes room must not be ended for it.
                if disk.last is not None and size > max(disk.limit, disk.last):
                    await self._end_all(uid)
                disk.last = size

    def _taken(self, uid: str) -> int:
        return sum(taken(self._state, [part.format(uid) for part in parts]) for parts in _PARTS)

    async def _end_all(self, uid: str) -> None:
        """Also what executions that have ended left behind."""
        try:
            async with self._agents.link(uid) as agent:
                for each in (await agent.listing()).executions:
                    self._end(uid, each.execution_id, frames.DISK)
        except (AgentError, PeerGone, PeerTooOld):
            return  # At the next look.

    def _end(self, uid: str, key: str, which: bytes) -> None:
        if key not in self._ending:
            self._ending.add(key)
            self._background.keep(self._exceeded(uid, key, which))

    async def _exceeded(self, uid: str, key: str, which: bytes) -> None:
        try:
            async with self._agents.link(uid) as agent:
                await agent.exceeded(key, which)
        except (AgentError, PeerGone, PeerTooOld) as error:
            _log.warning("what met a limit is not ended", extra={"fields": {"why": str(error)}})
        finally:
            self._ending.discard(key)
