"""Starts executions, each at most once whatever is killed, retried or raced.

The record is on disk before the agent is asked, and the agent starts a key only once and only with
an empty log. So a start that broke off is repeated with the same record; only when the agent is
gone, or surely never heard of it, does the record go. A start that the agent refused (there is no
such program) leaves no record: the id is free again.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

from agent.client import AgentClient
from servicekit import calls, tracing
from servicekit.disk import DiskGuard, full
from servicekit.rates import Overloaded
from services.executor.agents import Agents
from services.executor.background import Background
from services.executor.errors import ExecutionExists
from services.executor.groups import Groups
from services.executor.keeping import Keeper
from services.executor.launching import Launcher
from services.executor.preparing import Preparer
from services.executor.record import Record, Spec, State
from services.executor.secrets import Secrets, Variables
from services.executor.store import Draft, Store
from services.executor.tenants import Tenants
from services.executor.turns import Turns


class Starter:
    """Starts executions."""

    def __init__(
        self,
        *,
        store: Store,
        agents: Agents,
        groups: Groups,
        keeper: Keeper,
        launcher: Launcher,
        tenants: Tenants,
        preparer: Preparer,
        disk: DiskGuard,
        background: Background,
        secrets: Secrets,
        turns: Turns,
        started: Callable[[], None] = lambda: None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._agents = agents
        self._groups = groups
        self._keeper = keeper
        self._launcher = launcher
        self._tenants = tenants
        self._preparer = preparer
        self._disk = disk
        self._background = background
        self._secrets = secrets
        self._turns = turns
        self._started = started
        self._now_ns = now_ns

    async def start(self, uid: str, execution_id: str, spec: Spec, variables: Variables) -> Record:
        """Start a command, or find the one of that id. Goes on when the caller leaves.

        Raises ExecutionExists, QuotaExceeded, Overloaded, CapabilityMissing, DiskFull,
        SecretNotFound, what the agent refuses, and what awakes nobody.
        """
        try:
            self._turns.check()
        except Overloaded:
            if not self._store.read(uid, execution_id):
                raise
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
            async with self._turns.turn(uid):
                return await self._begin(agent, (uid, execution_id, spec), variables)

    async def _begin(
        self, agent: AgentClient, asked: tuple[str, str, Spec], variables: Variables
    ) -> Record | None:
        uid, _, spec = asked
        launcher = self._launcher
        methods = launcher.methods(agent, spec)
        wanted = *asked, self._now_ns()
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
                ran = prepared and await launcher.run(agent, record, variables, methods)
                if not ran:
                    await launcher.launch(record, variables, asked=bool(prepared))
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

    async def _go_on(self, record: Record, variables: Variables) -> State:
        """See to it that a recorded execution was started."""
        async with self._store.held(record) as there:
            if not there:
                return State.REMOVED
            state = await self._keeper.settle(record)
            if state is State.STARTING:
                variables = await self._secrets.complete(record.spec, variables)
                await self._launcher.launch(record, variables, asked=True)
                return State.RUNNING
            return state


def _apart(spec: Spec, methods: Mapping[str, str]) -> bool:
    return bool(spec.limits.milli_cpus) and methods["cpu"] == "cgroup_v1"
