"""Sees how executions end, whoever started them, and records it.

An end is first of all what the agent wrote as result. Where it wrote none and is gone, or does
not know the execution any more, the execution is lost, and the executor says so.
"""

import asyncio
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from agent.client import AgentError, PeerGone, PeerTooOld
from agent.record import Result
from services.executor.agents import Agents, absent
from services.executor.background import Background
from services.executor.ending import End
from services.executor.groups import Groups
from services.executor.output import Outputs
from services.executor.preparing import Preparer
from services.executor.record import Record, State
from services.executor.store import Store
from services.executor.watch import Changes, Watcher

_LOOK_AGAIN: Final = 30.0
"""Seconds after which an end that nobody told of is looked for."""
_LEFT_AGAIN: Final = 2.0
"""Seconds after which control groups that were still in use are tried again."""
_UNSURE: Final = 0.5
"""The same while the agent does not answer."""
_PATIENCE: Final = 15.0
"""Seconds that a question waits for an agent that does not answer."""
_ABANDONED: Final = 60.0
"""Seconds after which a start that the agent does not know of will never reach it."""
_AFTER: Final = 0.025
"""Seconds from an end until what it leaves is removed, and the next start prepared."""
_OVER: Final = (State.ENDED, State.REMOVED)


class _Presence(Enum):
    RUNNING = auto()
    BECOMING = auto()
    """The agent is about to start it, which may yet fail."""
    UNLISTED = auto()
    """The agent answers, and has ended or never had it."""
    GONE = auto()
    """There is no agent."""
    UNSURE = auto()


class Kept:
    """An execution that is looked after."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.began = False
        """The agent has said that it runs."""
        self.looked = asyncio.Event()
        """Set when it was first looked at."""
        self.over = asyncio.Event()
        """Set when its end is recorded, or it is removed."""
        self.end: End | None = None
        """Which may only be on disk."""


class Keeper:
    """Keeps an eye on executions that have not ended. All of it can be made again from the disk."""

    def __init__(
        self,
        *,
        store: Store,
        agents: Agents,
        groups: Groups,
        watcher: Watcher,
        outputs: Outputs,
        preparer: Preparer,
        background: Background,
        ended: Callable[[End], None] = lambda _: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._agents = agents
        self._groups = groups
        self._watcher = watcher
        self._outputs = outputs
        self._preparer = preparer
        self._background = background
        self._ended = ended
        self._now = now
        self._kept: dict[str, Kept] = {}
        self.known = asyncio.Event()
        """Set when all that earlier executors left is kept."""

    async def run(self) -> None:
        """Go on where earlier executors stopped, then clean up for ever."""
        await asyncio.to_thread(self._store.sweep)
        uids = await asyncio.to_thread(self._store.environments)
        for uid in uids:
            for record in await asyncio.to_thread(self._unfinished, uid):
                self.keep(record)
        self.known.set()
        for uid in uids:
            await self._sweep_groups(uid)
        while True:
            await asyncio.sleep(_LEFT_AGAIN)
            if self._groups.are_left:
                await asyncio.to_thread(self._groups.remove_left)

    def keep(self, record: Record, *, started: bool = False) -> Kept:
        """Record its end when it comes. `started`: the agent has just said that it runs."""
        kept = self._kept.get(record.key)
        if kept is None:
            kept = self._kept[record.key] = Kept(record)
            self._background.keep(self._keep(record, kept, started=started))
        kept.began = kept.began or started
        return kept

    def running(self) -> list[Record]:
        """Those that have not ended, as far as it is known here."""
        return [each.record for each in self._kept.values() if not each.end]

    async def certain(self, record: Record) -> State:
        """How far it is now, as the agent says; unless that does not answer."""
        async with self._store.held(record) as there:
            return await self.settle(record) if there else State.REMOVED

    async def state(self, record: Record) -> State:
        """How far it is; an end is seen within milliseconds, or when it is first looked for."""
        progress = self._store.progress(record)
        if progress.state in _OVER:
            return progress.state
        kept = self.keep(record)
        try:
            async with asyncio.timeout(_PATIENCE):
                await kept.looked.wait()
        except TimeoutError:
            return progress.state
        return self._store.progress(record).state

    async def settle(self, record: Record, *, ask: bool = True) -> State:
        """Record the end if there is one, asking the agent too. The caller holds the record.

        STARTING, too, when it is not sure that it ever runs: its log is begun before.
        """
        progress = self._store.progress(record)
        if progress.state in _OVER:
            return progress.state
        result = self._store.result(record)
        why = ""
        if result is None:
            if not ask:
                return progress.state
            presence = await self._presence(record)
            if presence not in (_Presence.UNLISTED, _Presence.GONE):
                return progress.state if self._runs(record, presence) else State.STARTING
            # The agent wrote the result, if any, before it went or forgot the execution.
            result = self._store.result(record)
            since = self._store.progress(record).state
            if result is None and since is State.STARTING:  # Perhaps it failed to begin just now.
                return await self._unstarted(record, presence)
            if result is None and since is not progress.state:
                # It began since: what a dead executor had asked for came after our question.
                return await self.settle(record)
            gone = presence is _Presence.GONE
            why = "the sandbox ended" if gone else "the agent knows nothing of its end"
        if result:
            end = self._finish(record, result)
        else:
            end = await asyncio.to_thread(self._lose, record, why)
        if kept := self._kept.get(record.key):
            kept.end = end
        self._ended(end)
        self._background.keep(self._clear(record))
        return State.ENDED

    async def drop(self, record: Record) -> None:
        """Remove an execution, which the caller holds, as if it had never been."""
        await asyncio.to_thread(self._drop, record)

    async def _keep(self, record: Record, kept: Kept, *, started: bool) -> None:
        try:
            async with self._watcher.watching(record.folder, "result", "end") as changes:
                ask = not started
                while True:
                    changes.happened.clear()
                    state = await self._look(record, ask=ask)
                    kept.looked.set()
                    if state in _OVER:
                        return
                    ask = await self._next(record, changes)
        finally:
            self._kept.pop(record.key, None)
            kept.looked.set()
            kept.over.set()

    async def _look(self, record: Record, *, ask: bool) -> State:
        if not ask and self._store.result(record) is None and record.folder.exists():
            return State.RUNNING  # Nobody is to be waited for to know that.
        async with self._store.held(record) as there:
            return await self.settle(record, ask=ask) if there else State.REMOVED

    async def _next(self, record: Record, changes: Changes) -> bool:
        """Wait until something may have happened; true when the agent is to be asked what."""
        begin = time.monotonic()
        try:
            async with self._agents.link(record.uid) as agent:
                with agent.when_gone(changes.happened.set):
                    await changes.wait(_LOOK_AGAIN)
                return agent.gone.is_set() or time.monotonic() - begin >= _LOOK_AGAIN
        except (PeerGone, PeerTooOld):
            await changes.wait(_UNSURE)
            return True

    async def _presence(self, record: Record) -> _Presence:
        try:
            async with self._agents.link(record.uid) as agent:
                listing = await agent.listing()
        except PeerGone as error:
            return _Presence.GONE if absent(error) else _Presence.UNSURE
        except (PeerTooOld, AgentError):
            return _Presence.UNSURE
        for each in listing.executions:
            if each.execution_id == record.key and not each.ended:
                return _Presence.RUNNING if each.begun else _Presence.BECOMING
        return _Presence.UNLISTED

    def _runs(self, record: Record, presence: _Presence) -> bool:
        """Whether it is sure that it began."""
        kept = self._kept.get(record.key)
        if kept and presence is _Presence.RUNNING:
            kept.began = True
        return presence is _Presence.RUNNING or bool(kept and kept.began)

    async def _unstarted(self, record: Record, presence: _Presence) -> State:
        """It never ran. Its id is free again once nobody's request can still reach the agent."""
        asked = self._store.asked(record)
        if presence is _Presence.GONE or self._now() - asked > _ABANDONED:
            await self.drop(record)
            return State.REMOVED
        return State.STARTING

    async def _clear(self, record: Record) -> None:
        await asyncio.sleep(_AFTER)  # Whoever waits for the end is told first.
        self._preparer.prepare(record.uid)
        await asyncio.to_thread(self._groups.remove, self._store.groups(record))

    def _finish(self, record: Record, result: Result) -> End:
        usage = self._groups.usage(self._store.groups(record))
        cpu_us = record.spec.limits.cpu_time_ns // 1000
        end = End.of(result, usage, cpu_us, disk=bool(record.disk_bytes))
        self._store.write_end(record, end)
        return end

    def _lose(self, record: Record, why: str) -> End:
        end = End.lost(
            why,
            start_ns=self._outputs.start_ns(record),
            end_ns=int(self._now() * 1e9),
            output=self._outputs.size(record, dead=True),
            usage=self._groups.usage(self._store.groups(record)),
        )
        self._store.write_end(record, end)
        return end

    def _drop(self, record: Record) -> None:
        paths = self._store.groups(record)
        self._store.remove(record)
        self._groups.remove(paths)

    def _unfinished(self, uid: str) -> list[Record]:
        records = self._store.records(uid)
        return [each for each in records if self._store.progress(each).end is None]

    async def _sweep_groups(self, uid: str) -> None:
        """Remove control groups that killed executors left."""
        try:
            async with self._agents.link(uid) as agent:
                found = await asyncio.to_thread(self._groups.left, agent.pid)
        except (PeerGone, PeerTooOld):
            return
        unfinished = await asyncio.to_thread(self._unfinished, uid)
        used = {path for each in unfinished for path in self._store.groups(each)}
        await asyncio.to_thread(self._groups.remove, set(found) - used)
