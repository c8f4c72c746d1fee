"""Several nodes under one registry and one gateway: real processes, each with its own state."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc

from agent.launcher_client import LauncherClient
from cove.client import Client
from cove.provider.v1 import provider_pb2
from cove.provider.v1.provider_pb2_grpc import ProviderServiceStub
from tests.support.suite import listening, until

TOOLS: Final = ("git", "provider", "executor")
_START: Final = 60.0


class Process:
    """One that can be killed, and started again."""

    def __init__(self, argv: list[str], env: Mapping[str, str], log: Path) -> None:
        self._argv = argv
        self._env = env
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> list[str]:
        """Returns when it serves: the addresses it tells."""
        with self._log.open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", *self._argv),
                env={**os.environ, **self._env},
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
        assert self._process.stdout
        async with asyncio.timeout(_START):
            line = await self._process.stdout.readline()
        assert line, f"{self._argv} does not start: {self._log.read_text()[-2000:]}"
        told: list[str] = json.loads(line)["addresses"]
        return told

    def send(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)

    async def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._process and self._process.returncode is None:
            self._process.send_signal(number)
            await self._process.communicate()


@dataclass(slots=True, kw_only=True)
class Node:
    """A machine, as far as Cove knows."""

    name: str
    state: Path
    runtime: Path
    tools: dict[str, Process]
    launcher: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        await asyncio.gather(*(each.start() for each in self.tools.values()))
        self.launcher = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "agent.launcher", "--runtime", str(self.runtime)),
            *("--state", str(self.state), "--node", self.name),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await until(lambda: bool(listening(self.runtime / "launcher")), f"{self.name} has one")

    async def cut(self) -> None:
        """As when its power goes: everything at once. What is on its disk stays."""
        await asyncio.gather(*(each.kill() for each in self.tools.values()))
        if self.launcher and self.launcher.returncode is None:
            async with LauncherClient.connect(self.runtime / "launcher") as launcher:
                await launcher.shutdown(stop_sandboxes=True)
            await self.launcher.wait()

    async def uids(self) -> set[str]:
        """Of what is provisioned there."""
        found: set[str] = set()
        async with grpc.aio.insecure_channel(f"unix:{self.runtime}/provider") as channel:
            request = provider_pb2.ListProvisionedRequest(page_size=1000)
            answer = await ProviderServiceStub(channel).ListProvisioned(request)
        found.update(each.uid for each in answer.observations)
        return found


@dataclass(slots=True, kw_only=True)
class Cluster:
    nodes: dict[str, Node]
    client: Client
    processes: dict[str, Process] = field(default_factory=dict)

    async def answering(self) -> set[str]:
        """Names of the nodes that the gateway hears."""
        told = await self.client.capabilities()
        return {each.name for each in told.nodes if each.answers}


@asynccontextmanager
async def running(tmp_path: Path, names: tuple[str, ...], roots: Path) -> AsyncIterator[Cluster]:
    """A gateway that knows nodes of these names; all are up."""
    base = Path(tempfile.mkdtemp(prefix="cn-", dir="/tmp"))
    central = {"COVE_STATE": str(tmp_path / "central"), "COVE_RUNTIME": str(base / "central")}
    nodes = {name: _node(name, tmp_path, base, roots) for name in names}
    gateway = {
        **central,
        "COVE_GATEWAY__NODES": ",".join(names),
        **{f"COVE_GATEWAY__{tool.upper()}": f"unix:{base}/{{node}}/{tool}" for tool in TOOLS},
        "COVE_GATEWAY__NO_AUTH": "true",
        "COVE_GATEWAY__GRPC": "127.0.0.1:0",
        "COVE_GATEWAY__ORPHAN_GRACE": "1s",
        "COVE_GATEWAY__RECONCILE_INTERVAL": "1s",
        "COVE_GATEWAY__LEASE": "10s",
    }
    processes = {
        "registry": Process(["services.registry"], central, tmp_path / "registry.log"),
        "gateway": Process(["gateway"], gateway, tmp_path / "gateway.log"),
    }
    try:
        async with AsyncExitStack() as stack:
            for node in nodes.values():
                stack.push_async_callback(node.cut)
            for process in processes.values():
                stack.push_async_callback(process.kill)
            await asyncio.gather(*(node.start() for node in nodes.values()))
            await processes["registry"].start()
            addresses = await processes["gateway"].start()
            client = await stack.enter_async_context(Client(addresses[0], "", patience=30))
            cluster = Cluster(nodes=nodes, client=client, processes=processes)
            async with asyncio.timeout(_START):
                while await cluster.answering() != set(names):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            yield cluster
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _node(name: str, tmp_path: Path, base: Path, roots: Path) -> Node:
    state, runtime = tmp_path / name, base / name
    runtime.mkdir(mode=0o700, parents=True)
    env = {
        "COVE_STATE": str(state),
        "COVE_RUNTIME": str(runtime),
        "COVE_GIT__LOCAL_ROOTS": str(roots),
        "COVE_EXECUTOR__NODE": name,
    }
    tools = {
        tool: Process([f"services.{tool}"], env, tmp_path / f"{name}-{tool}.log") for tool in TOOLS
    }
    return Node(name=name, state=state, runtime=runtime, tools=tools)
