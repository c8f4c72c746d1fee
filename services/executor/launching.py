"""Has the agent start what is recorded.

An agent starts a key only once, so it may be asked any number of times. The record goes only when
it is sure that nothing asked for can come of it any more; else its id would be free too early.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import NoReturn

from agent.client import (
    AgentClient,
    AgentError,
    CommandLimits,
    ErrorCode,
    PeerGone,
    PeerTooOld,
    Sinks,
)
from servicekit.disk import full
from services.executor.agents import TRIES, Agents, absent, slow
from services.executor.command import command, limits, refusal
from services.executor.errors import (
    AgentTooOld,
    AgentUnavailable,
    CapabilityMissing,
    EnvironmentDormant,
)
from services.executor.groups import Groups, Joins
from services.executor.keeping import Keeper
from services.executor.measuring import limit
from services.executor.preparing import opened
from services.executor.record import Limits, Record, Spec, State
from services.executor.secrets import Variables
from services.executor.store import Store


class Launcher:
    """Asks agents. Whoever calls it holds the record."""

    def __init__(self, *, store: Store, agents: Agents, groups: Groups, keeper: Keeper) -> None:
        self._store = store
        self._agents = agents
        self._groups = groups
        self._keeper = keeper

    def methods(self, agent: AgentClient, spec: Spec) -> Mapping[str, str]:
        """Which limits control groups keep here. Raises CapabilityMissing."""
        if spec.limits == Limits():
            return {}
        methods = self._groups.methods(agent.pid)
        if spec.limits.milli_cpus and "cpu" not in methods:
            raise CapabilityMissing(
                "this node cannot limit the processor time per time of an execution",
                remedy="Leave milli_cpus out, or limit cpu_time; or have the operator run the "
                "launcher and the executor as root, with the control group of the processor.",
                capability="milli_cpus",
            )
        return methods

    async def run(
        self, agent: AgentClient, record: Record, variables: Variables, methods: Mapping[str, str]
    ) -> bool:
        """Have the agent start what is prepared. False when it must be asked another way.

        That is safe whatever has happened, as the agent starts a key once. Raises what it refuses,
        AgentTooOld, AgentUnavailable.
        """
        try:
            async with _used(agent, record.token):
                await self._limit(agent, record, variables, methods, record.groups)
                await agent.run(record.token, record.key, command(record, variables))
        except AgentError as error:
            if error.code in (ErrorCode.NOT_PREPARED, ErrorCode.ALREADY_STARTED):
                return error.code is ErrorCode.ALREADY_STARTED
            await self._refused(record, error)
        except AgentTooOld:
            await self._keeper.drop(record)
            raise
        except (PeerGone, OSError):
            return False
        return True

    async def launch(self, record: Record, variables: Variables, *, asked: bool) -> None:
        """Have the agent start it.

        Raises what it refuses, CapabilityMissing, DiskFull, AgentTooOld, AgentUnavailable,
        EnvironmentDormant.

        `asked`: it may have been before, and that may still be on its way. Then the record stays,
        unless the agent says that it starts nothing.
        """
        await asyncio.to_thread(self._store.ask, record)
        for _ in range(TRIES):
            try:
                async with self._agents.link(record.uid) as agent:
                    await self._ask(agent, record, variables)
                return
            except AgentError as error:
                if error.code is ErrorCode.ALREADY_STARTED:
                    return  # It ran, and was forgotten: who looks finds how it ended.
                if error.code is not ErrorCode.NOT_PREPARED:  # Else it was killed before it began.
                    await self._refused(record, error)
            except AgentTooOld:
                await self._unasked(record, asked=asked)
                raise
            except PeerTooOld:
                await self._unasked(record, asked=asked)
                raise AgentTooOld("the agent is of another version", uid=record.uid) from None
            except PeerGone as error:
                if slow(error):
                    break
                if not absent(error):
                    asked = True
                elif await self._over(record):
                    return
                # Else another agent has come meanwhile.
            except OSError as error:
                await self._unasked(record, asked=asked)
                if asked:
                    raise AgentUnavailable("it cannot be asked now", uid=record.uid) from error
                if told := full(error.errno):
                    raise told from error
                raise
        if not await self._over(record):
            raise AgentUnavailable("the agent broke off before it began", uid=record.uid)

    async def _over(self, record: Record) -> bool:
        """Whether it began, or has ended. Raises EnvironmentDormant when it never will."""
        state = await self._keeper.settle(record)
        if state is State.REMOVED:
            raise EnvironmentDormant("the sandbox ended before it began", uid=record.uid)
        return state is not State.STARTING

    async def _limit(
        self,
        agent: AgentClient,
        record: Record,
        variables: Variables,
        methods: Mapping[str, str],
        paths: Sequence[str],
    ) -> None:
        """Put the limits of what is to be started into force. Raises AgentTooOld."""
        if record.spec.limits != Limits():
            await asyncio.to_thread(limit, paths, record.spec.limits)
        told = limits(record, variables, methods)
        if told == CommandLimits():
            return
        try:
            await agent.limit(record.key, told)
        except AgentError as error:
            if error.code is not ErrorCode.BAD_REQUEST:
                # Of the limits only: an earlier try may have started it, so the record stays.
                raise AgentUnavailable("the agent takes no limits now", uid=record.uid) from error
            raise AgentTooOld("the agent cannot limit a command", uid=record.uid) from None

    async def _unasked(self, record: Record, *, asked: bool) -> None:
        """Free the id of what was never asked for."""
        if not asked:
            await self._keeper.drop(record)

    async def _refused(self, record: Record, error: AgentError) -> NoReturn:
        await self._keeper.drop(record)
        raise refusal(error, record.spec) from error

    async def _ask(self, agent: AgentClient, record: Record, variables: Variables) -> None:
        methods = self.methods(agent, record.spec)
        with ExitStack() as stack:
            opened = await asyncio.to_thread(self._opened, stack, record, agent.pid)
            log, result, joins, paths = opened
            sinks = Sinks(log=log, result=result, cgroup_procs=joins.procs, unified=joins.unified)
            await self._limit(agent, record, variables, methods, paths)
            await agent.start(record.key, command(record, variables), sinks)

    def _opened(
        self, stack: ExitStack, record: Record, agent_pid: int
    ) -> tuple[int, int, Joins, list[str]]:
        """Open what the agent is given, and tell the control groups.

        Raises PeerGone when they are gone.
        """
        cpu = bool(record.spec.limits.milli_cpus)
        paths = self._groups.paths(agent_pid, record.token, cpu=cpu)
        self._store.write_groups(record, paths)
        try:
            joins = stack.enter_context(self._groups.joining(paths))
        except FileNotFoundError as error:
            raise PeerGone("the environment's control groups are gone") from error
        return *opened(stack, record.folder), joins, paths


@asynccontextmanager
async def _used(agent: AgentClient, token: str) -> AsyncIterator[None]:
    """Where the block fails to use what was prepared, the agent keeps it no longer."""
    try:
        yield
    except Exception:
        with suppress(AgentError, PeerGone):
            await agent.forget(token)
        raise
