"""`true`, from the request to its exit status."""

import asyncio
import os
from pathlib import Path
from typing import Final

import grpc

from benchmarks.echo import Unary, echo_server
from benchmarks.measure import Action, Aim, interleaved, report
from benchmarks.suite import SERVICE_METADATA, Suite, make_repository
from cove.executor.v1 import executor_pb2
from cove.executor.v1.executor_pb2_grpc import ExecutorServiceStub
from cove.gateway.v1 import gateway_pb2 as pb

_ECHO: Final = "raw grpc.aio echo"
_AIMS: Final = (
    Aim("executor", "posix_spawn", 2.0),
    Aim("gateway", "posix_spawn", 4.0, also=_ECHO),
    Aim("executor", "docker exec", 1 / 20),
    Aim("gateway", "docker exec", 1 / 20),
)


async def run(suite: Suite, folder: Path) -> None:
    await suite.create(make_repository(folder / "repo", 45), "execute")
    spec = executor_pb2.ExecutionSpec(argv=["true"])

    async def through_gateway() -> None:
        request = pb.ExecuteRequest(name="workspaces/execute", spec=spec)
        answer = await suite.executions.Execute(request, metadata=suite.metadata)
        assert answer.execution.exit.WhichOneof("reason") == "code"

    await through_gateway()  # Activates it.
    handle = (await suite.environment("execute")).handle
    async with (
        grpc.aio.insecure_channel(f"unix:{suite.runtime}/executor") as direct,
        echo_server(str(folder)) as echo,
    ):
        executor = ExecutorServiceStub(direct)
        unary: Unary = echo.unary_unary("/bench.Echo/Unary")

        async def through_executor() -> None:
            request = executor_pb2.ExecuteRequest(handle=handle, spec=spec)
            await executor.Execute(request, metadata=SERVICE_METADATA)

        async def raw_echo() -> None:
            await unary(b"x" * 64)

        actions: dict[str, Action] = {
            "executor": through_executor,
            "gateway": through_gateway,
            "posix_spawn": spawn,
            _ECHO: raw_echo,
        }
        if engine := suite.engine:
            container = await engine.create()
            await engine.start(container)
            actions["docker exec"] = lambda: engine.execute(container, "true")
        medians = await interleaved(actions, rounds=200)
        report("execute `true`", medians, ["posix_spawn", _ECHO, "docker exec"], _AIMS)
        if suite.engine:
            await suite.engine.remove(container)
    await suite.delete("execute")


async def spawn() -> None:
    """posix_spawn and a wait that leaves the loop free, as a server would."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    descriptor = os.pidfd_open(pid)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    await ended.wait()
    loop.remove_reader(descriptor)
    os.close(descriptor)
    os.waitpid(pid, 0)
