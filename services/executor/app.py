"""Puts the executor together. Nothing else in it makes its own parts."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial

from prometheus_client import CollectorRegistry

from agent import SANDBOX_UID
from cove.executor.v1.executor_pb2_grpc import (
    add_ExecutorServiceServicer_to_server,
    add_FileServiceServicer_to_server,
)
from servicekit.disk import DiskGuard
from servicekit.fencing import Fences
from servicekit.ledger import Ledger
from servicekit.metrics import gauge
from servicekit.paging import PageTokens
from servicekit.server import Served, serving
from services.executor.agents import Agents
from services.executor.alive import Alive
from services.executor.background import Background
from services.executor.config import Config
from services.executor.executions import Executions
from services.executor.files.archives import Archives
from services.executor.files.drafts import Drafts
from services.executor.files.files import Files
from services.executor.files.helper import Helpers
from services.executor.files.places import Places
from services.executor.files.service import FileServicer
from services.executor.files.watching import Watches
from services.executor.files.writing import Writer
from services.executor.groups import Groups
from services.executor.inputs import Inputs
from services.executor.keeping import Keeper
from services.executor.launching import Launcher
from services.executor.metrics import Metrics
from services.executor.output import Outputs
from services.executor.ports import Ports
from services.executor.preparing import Preparer
from services.executor.retention import Retention, Trimmer, punches
from services.executor.secrets import Secrets
from services.executor.service import ExecutorServicer
from services.executor.starting import Starter
from services.executor.store import Store
from services.executor.tenants import Tenants
from services.executor.turns import Turns
from services.executor.using import Uses
from services.executor.warden import Warden
from services.executor.watch import Watcher


@asynccontextmanager
async def executor(config: Config) -> AsyncIterator[Served]:
    """Serve while the block runs. Commands that run then go on without it."""
    state = config.state / "executor"
    store = Store(state / "executions")
    groups = Groups.here()
    agent_uid = SANDBOX_UID if os.geteuid() == 0 else os.geteuid()
    stopping = asyncio.Event()
    collected = CollectorRegistry()
    metrics = Metrics(collected)
    async with AsyncExitStack() as stack:
        watcher = stack.enter_context(Watcher.open())
        background = await stack.enter_async_context(Background.open())
        ledger = await stack.enter_async_context(Ledger.open(state / "ledger.db"))
        fences = await stack.enter_async_context(Fences.open(state / "fences.db", store.has))
        tokens = PageTokens.load(state / "page.key")
        agents = Agents(config.runtime, config.node, agent_uid, background, config.drivers)
        outputs = Outputs(store, watcher, config.heartbeat.total_seconds())
        preparer = Preparer(store=store, agents=agents, groups=groups, background=background)
        keeper = Keeper(
            store=store,
            agents=agents,
            groups=groups,
            watcher=watcher,
            outputs=outputs,
            preparer=preparer,
            background=background,
            ended=metrics.ended,
        )
        gauge(
            collected,
            "cove_executions_running",
            "Executions that run.",
            lambda: len(keeper.running()),
        )
        turns = Turns()
        gauge(
            collected,
            "cove_executions_waiting",
            "Executions that wait for their turn to be started.",
            lambda: turns.waiting,
        )
        tenants = Tenants(keeper)
        disk = DiskGuard(config.state, config.disk_limit)
        launcher = Launcher(store=store, agents=agents, groups=groups, keeper=keeper)
        starter = Starter(
            store=store,
            agents=agents,
            groups=groups,
            keeper=keeper,
            launcher=launcher,
            tenants=tenants,
            preparer=preparer,
            disk=disk,
            background=background,
            secrets=Secrets(config.secrets or state / "secrets"),
            turns=turns,
            started=metrics.started,
        )
        inputs = Inputs(store=store, agents=agents, keeper=keeper, background=background)
        executions = Executions(
            store=store,
            agents=agents,
            groups=groups,
            watcher=watcher,
            outputs=outputs,
            keeper=keeper,
            starter=starter,
            inputs=inputs,
        )
        retention = Retention(
            execution_bytes=config.retention_execution,
            head_bytes=config.retention_head,
            environment_bytes=config.retention_environment,
            age_ns=config.retention_age // timedelta(microseconds=1) * 1000,
            holes=await asyncio.to_thread(punches, state),
        )
        trimmer = Trimmer(store=store, keeper=keeper, retention=retention)
        warden = Warden(
            store=store,
            agents=agents,
            groups=groups,
            keeper=keeper,
            background=background,
            state=config.state,
        )
        uses = Uses(store=store, agents=agents, groups=groups, keeper=keeper, outputs=outputs)
        face = ExecutorServicer(
            executions=executions,
            outputs=outputs,
            inputs=inputs,
            agents=agents,
            alive=Alive(agents),
            ports=Ports(agents),
            heartbeat=config.heartbeat.total_seconds(),
            ledger=ledger,
            fences=fences,
            tokens=tokens,
            background=background,
            stopping=stopping,
            uses=uses,
            methods=_methods(groups),
            retention=retention,
            tenants=tenants,
        )
        places = Places(config.state)
        drafts = Drafts(store, agents)
        helpers = Helpers(agents, background)
        files = FileServicer(
            files=Files(agents, places),
            writer=Writer(agents, places, drafts, background),
            archives=Archives(
                agents=agents,
                places=places,
                helpers=helpers,
                drafts=drafts,
                background=background,
            ),
            watches=Watches(helpers, config.heartbeat.total_seconds()),
            agents=agents,
            ledger=ledger,
            tokens=tokens,
            disk=disk,
        )
        services = {
            "cove.executor.v1.ExecutorService": partial(
                add_ExecutorServiceServicer_to_server, face
            ),
            "cove.executor.v1.FileService": partial(add_FileServiceServicer_to_server, files),
        }
        background.keep(keeper.run())
        background.keep(trimmer.run())
        background.keep(warden.run())
        background.keep(drafts.run())
        served = await stack.enter_async_context(serving(config, services, metrics=collected))
        stack.callback(stopping.set)  # Before the server ends its streams.
        yield served


def _methods(groups: Groups) -> Mapping[str, str]:
    """By what each limit of an execution is enforced here."""
    found = groups.node_methods()
    processes = {"memory": "rlimit", "pids": "rlimit"}
    return {**processes, **found, "time": "watched" if found else "rlimit"}
