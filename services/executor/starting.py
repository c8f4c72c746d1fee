"""Starts executions, each at most once whatever is killed, retried or raced.

The record is on disk before the agent is asked, and the agent starts a key only once and only with
an empty log. So a start that broke off is repeated with the same record; only when the agent is
gone, or surely never heard of it, does the record go. A start that the agent refused (there is no
such program) leaves no record: the id is free again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Final, NoReturn

from agent.client import (
    AgentClient,
    AgentError,
    CommandLimits,
    ErrorCode,
    PeerGone,
    PeerTooOld,
    Sinks,
)
from servicekit import calls, tracing
from servicekit.disk import DiskGuard, full
from services.executor.agents import Agents, absent
from services.executor.background import Background
from services.executor.command import command, limits, refusal
from services.executor.errors import (
    AgentTooOld,
    AgentUnavailable,
    CapabilityMissing,
    EnvironmentDormant,
    ExecutionExists,
)
from services.executor.groups import Groups, Joins
from services.executor.keeping import Keeper
from services.executor.measuring import limit
from services.executor.preparing import Preparer, opened
from services.executor.record import Limits, Record, Spec, State
from services.executor.secrets import Secrets, Variables
from services.executor.store import Draft, Store
from services.executor.tenants import Tenants

_TRIES: Final = 3


class Starter:
    """Starts executions."""

    def __init__(
        self,
        *,
        store: Store,
        agents: Agents,
        groups: Groups,
        keeper: Keeper,
        tenants: Tenants,
        preparer: Preparer,
        disk: DiskGuard,
        background: Background,
        secrets: Secrets,
        started: Callable[[], None] = lambda: None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._agents = agents
        self._groups = groups
        self._keeper = keeper
        self._tenants = tenants
        self._preparer = preparer
        self._disk = disk
        self._background = background
        self._secrets = secrets
        self._started = started
        self._now_ns = now_ns

    async def start(self, uid: str, execution_id: str, spec: Spec, variables: Variables) -> Record:
        """Start a command, or find the one of that id. Goes on when the caller leaves.

        Raises ExecutionExists, QuotaExceeded, CapabilityMissing, DiskFull, SecretNotFound, what
        the agent refuses, and what awakes nobody.
        """
        return await self._background.finish(self._start(uid, execution_id, spec, variables))

    async def _start(self, uid: str, execution_id: str, spec: Spec, variables: Variables) -> Record:
        if limit := calls.current().limits.executions:
            await self._tenants.known()
        while True:
            record = self._store.read(uid, execution_id)
            if record is None:
                with self._tenants.place(variables.tenant, limit):
                    record = await self._create(uid, execution_id, spec, variables)
                    if record:
                        self._started()
                        self._keeper.keep(record, started=True)
                        return record
            elif record.spec != spec:
                raise ExecutionExists("the id is of another execution", name=record.name)
            elif await self._go_on(record, variables) is not State.REMOVED:
                self._keeper.keep(record)
                return record

    async def _create(
        self, uid: str, execution_id: str, spec: Spec, variables: Variables
    ) -> Record | None:
        """Start a new one; None when the id was taken meanwhile."""
        self._disk.check()
        variables = await self._secrets.complete(spec, variables)
        async with self._agents.awake(uid) as agent:  # A dormant environment costs no record.
            await self._agents.check(agent, variables.handle)
            methods = self._methods(agent, spec)
            wanted = uid, execution_id, spec, self._now_ns()
            # What is prepared has no input, and no control group for the processor alone.
            unprepared = spec.has_input or _apart(spec, methods)
            prepared = None if unprepared else self._preparer.take(uid, agent)
            draft = None
            try:
                if prepared:
                    try:
                        record = await asyncio.to_thread(
                            self._store.name,
                            prepared.draft,
                            *wanted,
                            prepared.groups,
                            variables.disk_bytes,
                            variables.tenant,
                        )
                    except FileNotFoundError:  # All of the environment was just removed.
                        self._preparer.discard(prepared)
                        prepared = None
                    except OSError:
                        self._preparer.give_back(uid, agent, prepared)
                        raise
                if prepared:
                    draft = prepared.draft
                else:
                    making = asyncio.to_thread(self._made, wanted, agent.pid, variables)
                    draft, record = await making
            except FileExistsError:
                return None
            except OSError as error:
                if told := full(error.errno):
                    raise told from error
                raise
            try:
                with tracing.span("execution start", uid=uid):
                    if not (prepared and await self._run(agent, record, variables, methods)):
                        await self._launch(record, variables, asked=bool(prepared))
            finally:
                draft.close()
            return record

    def _made(
        self, wanted: tuple[str, str, Spec, int], agent_pid: int, variables: Variables
    ) -> tuple[Draft, Record]:
        draft = self._store.draft(wanted[0])
        try:
            groups = self._groups.paths(
                agent_pid, draft.token, cpu=bool(wanted[2].limits.milli_cpus)
            )
            named = self._store.name(draft, *wanted, groups, variables.disk_bytes, variables.tenant)
            return draft, named
        except OSError:
            self._store.discard(draft)
            raise

    def _methods(self, agent: AgentClient, spec: Spec) -> Mapping[str, str]:
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

    async def _go_on(self, record: Record, variables: Variables) -> State:
        """See to it that a recorded execution was started."""
        async with self._store.held(record) as there:
            if not there:
                return State.REMOVED
            state = await self._keeper.settle(record)
            if state is State.STARTING:
                variables = await self._secrets.complete(record.spec, variables)
                await self._launch(record, variables, asked=True)
                return State.RUNNING
            return state

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

    async def _run(
        self, agent: AgentClient, record: Record, variables: Variables, methods: Mapping[str, str]
    ) -> bool:
        """Have the agent start what is prepared. False when it must be asked another way.

        That is safe whatever has happened, as the agent starts a key once. The caller holds the
        record.
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

    async def _launch(self, record: Record, variables: Variables, *, asked: bool) -> None:
        """Have the agent start it. The caller holds the record.

        `asked`: it may have been before, and that may still be on its way. Then the record stays,
        but where the agent says that it starts nothing.
        """
        await asyncio.to_thread(self._store.ask, record)
        for _ in range(_TRIES):
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
                if absent(error):
                    break
                asked = True
            except OSError as error:
                await self._unasked(record, asked=asked)
                if asked:
                    raise AgentUnavailable("it cannot be asked now", uid=record.uid) from error
                if told := full(error.errno):
                    raise told from error
                raise
        state = await self._keeper.settle(record)
        if state is State.REMOVED:
            raise EnvironmentDormant("the sandbox ended before it began", uid=record.uid)
        if state is State.STARTING:
            raise AgentUnavailable("the agent broke off before it began", uid=record.uid)

    async def _unasked(self, record: Record, *, asked: bool) -> None:
        """Free the id of what was never asked for."""
        if not asked:
            await self._keeper.drop(record)

    async def _refused(self, record: Record, error: AgentError) -> NoReturn:
        await self._keeper.drop(record)
        raise refusal(error, record.spec) from error

    async def _ask(self, agent: AgentClient, record: Record, variables: Variables) -> None:
        methods = self._methods(agent, record.spec)
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


def _apart(spec: Spec, methods: Mapping[str, str]) -> bool:
    return bool(spec.limits.milli_cpus) and methods["cpu"] == "cgroup_v1"
