"""What it costs that a workspace is on another node: the tools are asked over TCP."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc

from benchmarks.echo import Unary, echo_server
from benchmarks.measure import Action, interleaved
from benchmarks.suite import Suite, make_repository
from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import ExecutionServiceStub, WorkspaceServiceStub

_ROUNDS = 300


async def run(suite: Suite, folder: Path) -> None:
    """Two gateways on the same tools, one by their sockets and one over loopback."""
    await suite.create(make_repository(folder / "repo", 45), "nodes")
    secret = folder / "secret"
    secret.write_text("s" * 40)
    secret.chmod(0o600)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        near = await enter(_gateway(suite, {}, "near"))
        variables = {"GIT": "{node}:1"}  # Which no command needs; two have no room on one disk.
        for tool in ("provider", "executor"):
            settings = {"ADDRESS": "127.0.0.1:0", "SERVICE_TOKEN_FILE": str(secret)}
            address = await enter(_process(suite, f"services.{tool}", tool.upper(), settings))
            variables[tool.upper()] = "{node}:" + address.rpartition(":")[2]
        variables |= {"NODES": "127.0.0.1", "SERVICE_TOKEN_FILE": str(secret)}
        far = await enter(_gateway(suite, variables, "far"))
        echo = await enter(echo_server(str(folder), "127.0.0.1:0"))
        unary: Unary = echo.unary_unary("/bench.Echo/Unary")
        await _answering(far)
        actions: dict[str, Action] = {
            "near": lambda: _execute(near),
            "far": lambda: _execute(far),
            "echo": lambda: unary(b"x" * 64),
        }
        found = await interleaved(actions, rounds=_ROUNDS)
    hop, raw = found["far"] - found["near"], found["echo"]
    print("\nexecute `true` on a node over TCP, beside one over unix sockets")
    print(
        f"  {'added by the hop':38} {hop / raw:8.2f} x {'raw grpc.aio echo over TCP':30}"
        f" ({found['far'] * 1000:.2f} - {found['near'] * 1000:.2f} ms against {raw * 1000:.2f} ms)"
    )
    await suite.delete("nodes")


async def _execute(channel: grpc.aio.Channel) -> None:
    spec = executor_pb2.ExecutionSpec(argv=["true"])
    request = pb.ExecuteRequest(name="workspaces/nodes", spec=spec)
    answer = await ExecutionServiceStub(channel).Execute(request)
    assert answer.execution.exit.WhichOneof("reason") == "code"


async def _answering(channel: grpc.aio.Channel) -> None:
    stub = WorkspaceServiceStub(channel)
    while True:
        told = await stub.GetCapabilities(pb.GetCapabilitiesRequest(), wait_for_ready=True)
        if any(each.answers for each in told.nodes):
            return
        await asyncio.sleep(0.1)


@asynccontextmanager
async def _gateway(
    suite: Suite, settings: Mapping[str, str], name: str
) -> AsyncIterator[grpc.aio.Channel]:
    own = {"NO_AUTH": "true", "ADDRESS": f"unix:{suite.runtime}/{name}", **settings}
    async with (
        _process(suite, "gateway", "GATEWAY", own) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield channel


@asynccontextmanager
async def _process(
    suite: Suite, module: str, service: str, settings: Mapping[str, str]
) -> AsyncIterator[str]:
    """A process beside those of the suite, on the same directories; gives its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", module),
        env={
            **os.environ,
            "COVE_STATE": str(suite.state),
            "COVE_RUNTIME": str(suite.runtime),
            f"COVE_{service}__LOG_LEVEL": "warning",
            **{f"COVE_{service}__{key}": value for key, value in settings.items()},
        },
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout
        told = json.loads(await process.stdout.readline())
        yield str(told["addresses"][0])
    finally:
        process.terminate()
        await process.communicate()
