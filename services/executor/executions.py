"""The executions of this node: what callers may do with them."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from agent.client import AgentError, ErrorCode, InputState, Scope
from services.executor.agents import Agents
from services.executor.command import cannot
from services.executor.ending import End, Usage
from services.executor.errors import (
    AgentUnavailable,
    EnvironmentDormant,
    ExecutionEnded,
    ExecutionNotFound,
    ExecutionRunning,
)
from services.executor.groups import Groups
from services.executor.inputs import NO_INPUT, Inputs
from services.executor.keeping import Keeper
from services.executor.output import Outputs
from services.executor.places import Order
from services.executor.record import Progress, Record, Spec, State
from services.executor.secrets import Variables
from services.executor.starting import Starter
from services.executor.store import Store
from services.executor.watch import Watcher

_GRACE: Final = timedelta(seconds=5)
_KILLED: Final = 10.0
"""Seconds within which a killed execution is seen to have ended."""
_MOMENT: Final = 0.05
_LOOKED_AT: Final = 1000
"""Executions that one page looks at, at most."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An execution as it is now."""

    record: Record
    progress: Progress
    start_ns: int
    output_bytes: int
    usage: Usage = field(default_factory=Usage)
    input: InputState = NO_INPUT


class Executions:
    """Finds, starts, signals and removes executions by environment and id."""

    def __init__(
        self,
        *,
        store: Store,
        agents: Agents,
        groups: Groups,
        watcher: Watcher,
        outputs: Outputs,
        keeper: Keeper,
        starter: Starter,
        inputs: Inputs,
    ) -> None:
        self._store = store
        self._agents = agents
        self._groups = groups
        self._watcher = watcher
        self._outputs = outputs
        self._keeper = keeper
        self._starter = starter
        self._inputs = inputs
        self._unsure: set[str] = set()
        """Names of those whose kill was begun, and not yet seen to have ended."""

    async def start(
        self, uid: str, execution_id: str, spec: Spec, variables: Variables
    ) -> Snapshot:
        """Start a command, or find the one of that id; see Starter."""
        record = await self._starter.start(uid, execution_id, spec, variables)
        return await self.snapshot(record)

    async def find(self, uid: str, execution_id: str) -> Record:
        """Raises ExecutionNotFound. What was left unfinished is finished, or found lost."""
        record = self._store.read(uid, execution_id)
        if record is None or await self._keeper.state(record) is State.REMOVED:
            name = f"environments/{uid}/executions/{execution_id}"
            raise ExecutionNotFound("no such execution", name=name)
        return record

    async def get(self, uid: str, execution_id: str) -> Snapshot:
        """Raises ExecutionNotFound."""
        return await self.snapshot(await self.find(uid, execution_id))

    async def page(
        self, uid: str, order: Order, after: str, size: int, selected: Callable[[Snapshot], bool]
    ) -> tuple[list[Snapshot], str]:
        """At most `size` executions, in the order, after what a page before told: where more may
        follow, that comes with them."""
        places = await asyncio.to_thread(self._store.places, uid, timed=order.by_time)
        places = order.rest(places, after)
        found: list[Snapshot] = []
        for looked_at, place in enumerate(places, start=1):
            with suppress(ExecutionNotFound):
                record = await self.find(uid, place.execution_id)
                snapshot = await self.snapshot(record, sure=False)
                if selected(snapshot):
                    found.append(snapshot)
            if looked_at < len(places) and (len(found) == size or looked_at == _LOOKED_AT):
                return found, order.told(place)
        return found, ""

    async def snapshot(self, record: Record, *, sure: bool = True) -> Snapshot:
        """Raises ExecutionNotFound when it was removed; see `Inputs.state` for the rest."""
        progress = self._store.progress(record)
        if progress.state is State.REMOVED:
            raise ExecutionNotFound("no such execution", name=record.name)
        given = await self._inputs.state(record, sure=sure)
        if progress.end:
            return replace(_ended(record, progress.end), input=given)
        start_ns = self._outputs.start_ns(record)
        size = await asyncio.to_thread(self._outputs.size, record)
        usage = self._groups.current(self._store.groups(record))
        return Snapshot(record, progress, start_ns, size, usage, given)

    async def environments(self) -> list[str]:
        """Uids of those that have, or had, executions, in order."""
        return await asyncio.to_thread(self._store.environments)

    async def wait(self, record: Record) -> Snapshot:
        """Return when it has ended. Raises ExecutionNotFound when it is removed."""
        while self._store.progress(record).state not in (State.ENDED, State.REMOVED):
            await self._keeper.keep(record).over.wait()
        return await self.snapshot(record)

    async def begin(self, uid: str, execution_id: str, spec: Spec, variables: Variables) -> Record:
        """As `start`; what is told is all that is known so early."""
        return await self._starter.start(uid, execution_id, spec, variables)

    async def briefly(self, record: Record) -> Snapshot | None:
        """Wait for the end for a moment, as most commands are short. None if it did not come."""
        kept = self._keeper.keep(record)
        with suppress(TimeoutError):
            async with asyncio.timeout(_MOMENT):
                await kept.over.wait()
        return _ended(record, kept.end) if kept.end else None

    async def signal(self, uid: str, execution_id: str, number: int, scope: Scope) -> Snapshot:
        """Raises ExecutionEnded when nothing is left to signal.

        SIGKILL to a TREE returns when nothing of it is left.
        """
        record = await self.find(uid, execution_id)
        ended = await self._keeper.state(record) is State.ENDED
        if scope is Scope.TREE and number == signal.SIGKILL:
            await self._kill(record, ended=ended)
        elif ended and scope is Scope.PROCESS:
            raise ExecutionEnded("the execution has ended", name=record.name)
        else:
            await self._signal(record, number, scope)
        return await self.snapshot(record)

    async def cancel(self, record: Record, by: str) -> None:
        """End it and all it started, for somebody who is named in its exit."""
        try:
            async with self._agents.awake(record.uid) as agent:
                await agent.cancel(record.key, by, _GRACE)
        except (AgentError, AgentUnavailable, EnvironmentDormant):
            return  # It ended by itself, or with its sandbox.

    async def delete(self, uid: str, execution_id: str, *, force: bool) -> None:
        """Remove one; with `force` it is killed.

        Raises ExecutionNotFound, ExecutionRunning; AgentUnavailable while it may still begin.
        """
        record = await self.find(uid, execution_id)
        if await self._keeper.certain(record) in (State.STARTING, State.RUNNING):
            if not force:
                raise ExecutionRunning("the execution is running", name=record.name)
            with suppress(ExecutionEnded):  # If so is seen now.
                await self._kill(record, ended=False)
        async with self._store.held(record) as there:
            state = await self._keeper.settle(record) if there else State.REMOVED
            if state in (State.STARTING, State.RUNNING):
                raise AgentUnavailable("it is not sure yet whether it begins", name=record.name)
            if state is State.ENDED:
                await self._keeper.drop(record)
        self._unsure.discard(record.name)

    async def delete_all(self, uid: str) -> int:
        """Remove all of an environment; returns how many. Raises ExecutionRunning."""
        for record in await asyncio.to_thread(self._store.records, uid):
            if await self._keeper.certain(record) in (State.STARTING, State.RUNNING):
                raise ExecutionRunning("an execution is running", name=record.name)
        return await asyncio.to_thread(self._store.remove_environment, uid)

    async def _kill(self, record: Record, *, ended: bool) -> None:
        """Raises ExecutionEnded when nothing is left, unless a kill before was broken off: whoever
        asks again is told what came of it."""
        again = record.name in self._unsure
        self._unsure.add(record.name)
        try:
            await self._kill_tree(record, ended=ended)
        except ExecutionEnded:
            if not again:
                self._unsure.discard(record.name)
                raise
        self._unsure.discard(record.name)

    async def _kill_tree(self, record: Record, *, ended: bool) -> None:
        paths = self._store.groups(record)
        if await asyncio.to_thread(self._groups.members, paths):
            if not await asyncio.to_thread(self._groups.kill, paths):
                raise AgentUnavailable("the processes do not end", name=record.name)
        elif not (ended and paths):
            await self._signal(record, signal.SIGKILL, Scope.TREE)
        else:
            raise ExecutionEnded("nothing of the execution is left", name=record.name)
        if not ended:
            try:
                async with asyncio.timeout(_KILLED):
                    await self.wait(record)
            except TimeoutError:
                raise AgentUnavailable("the end is not seen", name=record.name) from None

    async def _signal(self, record: Record, number: int, scope: Scope) -> None:
        try:
            async with self._agents.awake(record.uid) as agent:
                await agent.signal(record.key, number, scope)
        except EnvironmentDormant:
            raise ExecutionEnded("its sandbox has ended", name=record.name) from None
        except AgentError as error:
            if error.code is ErrorCode.CANNOT:
                raise cannot(error) from error
            if error.code not in (ErrorCode.EXECUTION_NOT_FOUND, ErrorCode.OS_ERROR):
                raise AgentUnavailable("the agent cannot", name=record.name) from error
            raise ExecutionEnded("the execution has ended", name=record.name) from error


def _ended(record: Record, end: End) -> Snapshot:
    progress = Progress(State.ENDED, end)
    return Snapshot(record, progress, end.start_ns, end.output_bytes, end.usage)
