"""Envoy as the data plane: in front of a gateway, and in front of an executor.

With everything of deploy/envoy on. So there is TLS on both sides of it, and what it is compared
with is a caller who speaks TLS with the gateway, or the executor, itself; what is there without TLS
stands beside it. Whoever calls, Envoy and who answers share the processors of the machine: what a
hop takes is taken from the others.
"""

import os
from asyncio import gather
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import grpc
import yaml

from benchmarks.measure import Action, Aim, interleaved, report
from benchmarks.stack import processor
from benchmarks.suite import SERVICE_METADATA
from benchmarks.suite import Suite as Beside
from cove.executor.v1 import executor_pb2
from cove.executor.v1.executor_pb2_grpc import ExecutorServiceStub
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import ExecutionServiceStub, WorkspaceServiceStub
from cove.registry.v1 import registry_pb2
from cove.registry.v1.registry_pb2_grpc import RegistryServiceStub
from cove_server.ports import reserved
from tests.envoy.behind import GATEWAY, Files, gateways
from tests.envoy.edge import edge, node
from tests.support.certificates import Paths
from tests.support.suite import Suite, running_suite

SIZE: Final = 32 << 20
_CALLS: Final = 640
_AT_ONCE: Final = 32
_ROUNDS: Final = 9
_KEPT_CALLS: Final = 0.7
_KEPT_SPEED: Final = 0.95
_PLAIN, _TLS, _ENVOY = "no TLS", "TLS", "Envoy"

Ways: TypeAlias = Mapping[str, grpc.aio.Channel]
Pids: TypeAlias = tuple[int, int]
"""Of who answers, and of Envoy."""

Metadata: TypeAlias = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Command:
    """One that has written `SIZE` bytes, as both services know it."""

    workspace: str
    name: str
    inner: str


async def run(_beside: Beside, folder: Path) -> None:
    """On a suite of its own, whose executor speaks TLS too."""
    files = Files(folder / "files")
    async with AsyncExitStack() as stack:
        at = stack.enter_context(reserved("127.0.0.1:0"))
        runtime = folder / "run"
        runtime.mkdir(mode=0o700)
        env = {
            "COVE_GATEWAY__READ_RATE": "0",  # On a quiet machine it is reached.
            "COVE_EXECUTOR__ADDRESS": f"unix:{runtime}/executor,{at}",
            "COVE_EXECUTOR__CERTIFICATE_FILE": str(files.gateway.certificate),
            "COVE_EXECUTOR__KEY_FILE": str(files.gateway.key),
            "COVE_EXECUTOR__CLIENT_CA_FILE": str(files.inner.path),
            "COVE_EXECUTOR__PEERS": GATEWAY,
        }
        suite = await stack.enter_async_context(running_suite(folder, env=env, runtime=runtime))
        command = await _written(suite)
        shown = (("authorization", f"Bearer {suite.token}"),)
        for title, reference, to in (
            ("gateway, no TLS anywhere", _PLAIN, _to_the_gateway_without(suite, files)),
            ("gateway", _TLS, _to_the_gateway(suite, files)),
        ):
            async with to as (ways, pids):
                await _of_the_gateway(title, reference, ways, pids, command, shown)
        async with _to_the_executor(suite, files, at) as (ways, pids):
            await _of_the_executor(ways, pids, command)


async def _of_the_gateway(
    title: str, reference: str, ways: Ways, pids: Pids, command: Command, shown: Metadata
) -> None:
    get = pb.GetWorkspaceRequest(name=command.workspace)
    read = pb.ReadOutputRequest(name=command.name)
    unary, stream = {}, {}
    for way, channel in ways.items():
        unary[way] = _many(WorkspaceServiceStub(channel).GetWorkspace, get, shown)
        stream[way] = _whole(ExecutionServiceStub(channel).ReadOutput, read, shown)
    await _compared(title, reference, pids, unary, stream)


async def _of_the_executor(ways: Ways, pids: Pids, command: Command) -> None:
    get = executor_pb2.GetExecutionRequest(name=command.inner)
    read = executor_pb2.ReadOutputRequest(name=command.inner)
    unary, stream = {}, {}
    for way, channel in ways.items():
        stub = ExecutorServiceStub(channel)
        unary[way] = _many(stub.GetExecution, get, SERVICE_METADATA)
        stream[way] = _whole(stub.ReadOutput, read, SERVICE_METADATA)
    await _compared("executor", _TLS, pids, unary, stream)


@asynccontextmanager
async def _to_the_gateway_without(suite: Suite, files: Files) -> AsyncIterator[tuple[Ways, Pids]]:
    """What Envoy does with the calls themselves: the suite's own gateway, and no TLS."""
    place = _Plain(suite.grpc, suite.http)
    async with (
        edge(files, [place], alter=_without_tls) as front,
        grpc.aio.insecure_channel(front.address) as through,
        grpc.aio.insecure_channel(suite.grpc) as plain,
    ):
        yield {_PLAIN: plain, _ENVOY: through}, (suite.pid("gateway"), front.process.pid)


@dataclass
class _Plain:
    mtls: str
    http: str


def _without_tls(text: str) -> str:
    """The file, with all the rest in it."""
    found = yaml.safe_load(text)
    (listener,) = found["static_resources"]["listeners"]
    del listener["listener_filters"]
    for each in (*listener["filter_chains"], *found["static_resources"]["clusters"]):
        del each["transport_socket"]
    return str(yaml.safe_dump(found))


@asynccontextmanager
async def _to_the_gateway(suite: Suite, files: Files) -> AsyncIterator[tuple[Ways, Pids]]:
    """The same gateway each time, without TLS by its unix socket."""
    async with (
        gateways(suite, files, 1, COVE_GATEWAY__READ_RATE="0") as (behind,),
        edge(files, [behind]) as front,
        front.channel() as through,
        grpc.aio.insecure_channel(behind.unix) as plain,
        grpc.aio.secure_channel(behind.mtls, _credentials(files, files.edge)) as tls,
    ):
        yield {_PLAIN: plain, _TLS: tls, _ENVOY: through}, (behind.pid, front.process.pid)


@asynccontextmanager
async def _to_the_executor(suite: Suite, files: Files, at: str) -> AsyncIterator[tuple[Ways, Pids]]:
    credentials = _credentials(files, files.gateway)
    async with (
        node(suite, files) as (settings, pid),
        grpc.aio.insecure_channel(suite.address("executor")) as plain,
        grpc.aio.secure_channel(at, credentials) as tls,
        grpc.aio.secure_channel(settings["COVE_GATEWAY__EXECUTOR"], credentials) as through,
    ):
        yield {_PLAIN: plain, _TLS: tls, _ENVOY: through}, (suite.pid("executor"), pid)


async def _written(suite: Suite) -> Command:
    async with suite.client() as client:
        workspace = await client.workspaces.create(id="envoy")
        execution = await workspace.start("head", "-c", str(SIZE), "/dev/zero")
        await execution.wait()
    async with grpc.aio.insecure_channel(suite.address("registry")) as channel:
        answer = await RegistryServiceStub(channel).GetEnvironment(
            registry_pb2.GetEnvironmentRequest(name="environments/envoy"),
            metadata=SERVICE_METADATA,
        )
    inner = f"environments/{answer.environment.uid}/executions/{execution.id}"
    return Command(workspace.name, execution.name, inner)


def _credentials(files: Files, shown: Paths) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        files.inner.path.read_bytes(), shown.key.read_bytes(), shown.certificate.read_bytes()
    )


def _many(call: Callable[..., Awaitable[Any]], request: Any, metadata: Metadata) -> Action:
    async def some() -> None:
        for _ in range(_CALLS // _AT_ONCE):
            await call(request, metadata=metadata)

    async def action() -> None:
        await gather(*(some() for _ in range(_AT_ONCE)))

    return action


def _whole(call: Callable[..., Any], request: Any, metadata: Metadata) -> Action:
    async def action() -> None:
        got = 0
        async for event in call(request, metadata=metadata):
            got += len(event.chunk.data)
        assert got == SIZE, got

    return action


async def _compared(
    what: str,
    reference: str,
    pids: Pids,
    unary: Mapping[str, Action],
    stream: Mapping[str, Action],
) -> None:
    for title, actions, kept in (
        (f"{what}, {_CALLS} calls, {_AT_ONCE} at once", unary, _KEPT_CALLS),
        (f"{what}, stream of {SIZE >> 20} MiB", stream, _KEPT_SPEED),
    ):
        aims = (Aim(_ENVOY, reference, 1 / kept),)
        medians = await interleaved(actions, rounds=_ROUNDS)
        report(f"{title}, in time", medians, [_PLAIN, _TLS], aims)
        costs = {way: _costing(pids, action) for way, action in actions.items()}
        medians = await interleaved(costs, rounds=_ROUNDS)
        report(f"{title}, in processor time of all", medians, [_PLAIN, _TLS], aims)


def _costing(pids: Pids, action: Action) -> Action:
    """Seconds that all three processes have for it: what it takes where nothing is idle, and what
    others on the machine do not change."""

    async def cost() -> float:
        before = sum(map(processor, (os.getpid(), *pids)))
        await action()
        return sum(map(processor, (os.getpid(), *pids))) - before

    return cost
