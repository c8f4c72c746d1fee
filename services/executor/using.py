"""What executions and environments use, now and as it changes."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field

from agent.client import PeerGone, PeerTooOld
from services.executor import processes
from services.executor.agents import Agents
from services.executor.ending import End, Usage
from services.executor.errors import ExecutionNotFound
from services.executor.groups import Groups
from services.executor.keeping import Keeper
from services.executor.output import Outputs
from services.executor.record import Record, State
from services.executor.store import Store


@dataclass(frozen=True, slots=True)
class Sample:
    """What is used at a moment."""

    time_ns: int
    running: bool
    output_bytes: int = 0
    usage: Usage = field(default_factory=Usage)


class Uses:
    """Measures. It asks the kernel only, but for finding an agent, which it does once each."""

    def __init__(
        self, *, store: Store, agents: Agents, groups: Groups, keeper: Keeper, outputs: Outputs
    ) -> None:
        self._store = store
        self._agents = agents
        self._groups = groups
        self._keeper = keeper
        self._outputs = outputs
        self._pids: dict[str, tuple[int, int]] = {}
        """Of the agents that were seen, with when they began."""

    async def watch(
        self, uid: str, record: Record | None, interval: float
    ) -> AsyncGenerator[Sample | End, None]:
        """Yield a sample each `interval` seconds: of an execution to its end, which comes last.

        Without `record` of the environment, for ever. Raises ExecutionNotFound.
        """
        if record is None:
            while True:
                yield await self._environment(uid)
                await asyncio.sleep(interval)
        kept = self._keeper.keep(record)
        while True:
            state = self._store.progress(record)
            if state.state is State.REMOVED:
                raise ExecutionNotFound("no such execution", name=record.name)
            if state.end:
                output = state.end.output_bytes
                yield Sample(time.time_ns(), False, output, state.end.usage)
                yield state.end
                return
            yield await self._execution(record)
            with suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await kept.over.wait()

    async def _execution(self, record: Record) -> Sample:
        paths = self._store.groups(record)
        usage = await asyncio.to_thread(self._groups.current, paths)
        if not paths and (agent := await self._agent(record.uid)):
            usage = await asyncio.to_thread(processes.usage, agent, record.key)
        output = await asyncio.to_thread(self._outputs.size, record)
        return Sample(time.time_ns(), True, output, usage)

    async def _environment(self, uid: str) -> Sample:
        agent = await self._agent(uid)
        if not agent:
            return Sample(time.time_ns(), False)
        usage = await asyncio.to_thread(self._groups.environment_usage, agent)
        if usage is None:
            usage = await asyncio.to_thread(processes.usage, agent)
        running = [each for each in self._keeper.running() if each.uid == uid]
        sizes = [await asyncio.to_thread(self._outputs.size, each) for each in running]
        return Sample(time.time_ns(), True, sum(sizes), usage)

    async def _agent(self, uid: str) -> int:
        """Pid of its agent; 0 when there is none. One that is known is left in peace."""
        pid, began = self._pids.get(uid, (0, 0))
        if pid and processes.began(pid) == began:
            return pid
        self._pids.pop(uid, None)
        if not self._agents.active(uid):
            return 0
        try:
            async with self._agents.link(uid) as client:
                pid = client.pid
        except (PeerGone, PeerTooOld):
            return 0
        if began := processes.began(pid):
            self._pids[uid] = pid, began
            return pid
        return 0
