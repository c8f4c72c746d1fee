"""What all that a call goes through costs, in processor time of the server."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc

from benchmarks.measure import Action, Aim, interleaved, report
from benchmarks.stack_server import TOKEN
from benchmarks.suite import Suite, make_repository
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import WorkspaceServiceStub

_BARE: Final = "bare grpc.aio"
_FAST: Final = "the same on uvloop"
"""On which the gateway is, too."""
_AIMS: Final = (
    Aim("all that a call goes through", _BARE, 1.25),
    Aim("gateway", _BARE, 1 / 0.35),
)
_CALLS: Final = 640
_AT_ONCE: Final = 16
_CLOCK_OF_PROCESS: Final = 2


def processor(pid: int) -> float:
    """Seconds that a process has had, all its threads together."""
    return time.clock_gettime((~pid << 3) | _CLOCK_OF_PROCESS)


def costing(pid: int, call: Callable[[], Awaitable[Any]]) -> Action:
    """Seconds of the process `pid` for one call, of many at once."""

    async def some() -> None:
        for _ in range(_CALLS // _AT_ONCE):
            await call()

    async def action() -> float:
        before = processor(pid)
        await asyncio.gather(*(some() for _ in range(_AT_ONCE)))
        return (processor(pid) - before) / _CALLS

    return action


async def run(suite: Suite, folder: Path) -> None:
    await suite.create(make_repository(folder / "repo", 5), "stack")
    token = folder / "token"
    token.touch(0o600)
    token.write_text(TOKEN)
    async with (
        _server("bare", folder) as (bare, bare_pid),
        _server("fast", folder) as (fast, fast_pid),
        _server("whole", folder) as (whole, whole_pid),
    ):
        request = pb.GetWorkspaceRequest(name="workspaces/stack")
        shown = (("authorization", f"Bearer {TOKEN}"),)
        actions: dict[str, Action] = {
            _BARE: costing(bare_pid, lambda: bare.GetWorkspace(request, metadata=shown)),
            _FAST: costing(fast_pid, lambda: fast.GetWorkspace(request, metadata=shown)),
            "all that a call goes through": costing(
                whole_pid, lambda: whole.GetWorkspace(request, metadata=shown)
            ),
            "gateway": costing(
                suite.processes()["gateway"],
                lambda: suite.workspaces.GetWorkspace(request, metadata=suite.metadata),
            ),
        }
        medians = await interleaved(actions, rounds=15)
    report("processor time of a call", medians, [_BARE, _FAST], _AIMS)


@asynccontextmanager
async def _server(kind: str, folder: Path) -> AsyncIterator[tuple[WorkspaceServiceStub, int]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.stack_server", kind, str(folder)),
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        address = (await process.stdout.readline()).decode().strip()
        async with grpc.aio.insecure_channel(address) as channel:
            yield WorkspaceServiceStub(channel), process.pid
    finally:
        process.terminate()
        await process.wait()
