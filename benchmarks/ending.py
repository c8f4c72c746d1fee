"""How fast a command is ended: by its caller's leaving, and with all that it started."""

import asyncio
import os
import secrets
import time
from itertools import count
from pathlib import Path
from typing import Final

from benchmarks.echo import Stream, echo_server
from benchmarks.measure import Action, interleaved, report
from benchmarks.suite import Suite, make_repository
from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb

DAEMONS: Final = 180
_STUBBORN: Final = """
trap '' TERM HUP INT
for number in $(seq DAEMONS); do (setsid sleep NAME &); done
exec sleep NAME
"""


async def run(suite: Suite, folder: Path) -> None:
    await suite.create(make_repository(folder / "repo", 45), "ending")
    await suite.execute("ending", "true")
    await _cancel(suite, folder)
    await _kill(suite)
    await suite.delete("ending")


async def _cancel(suite: Suite, folder: Path) -> None:
    async with echo_server(str(folder)) as echo:
        raw: Stream = echo.unary_stream("/bench.Echo/Cancelled")
        numbers = count()

        async def cancel() -> float:
            name = _name()
            spec = executor_pb2.ExecutionSpec(argv=["sh", "-c", f"echo; exec sleep {name}"])
            call = suite.executions.StreamExecution(
                pb.StreamExecutionRequest(
                    name="workspaces/ending", spec=spec, cancel_on_disconnect=True
                ),
                metadata=suite.metadata,
            )
            async for event in call:
                if event.HasField("chunk"):
                    break
            (pid,) = await _all(name, 1)
            descriptor = os.pidfd_open(pid)
            began = time.perf_counter()
            call.cancel()
            await _readable(descriptor)
            took = time.perf_counter() - began
            os.close(descriptor)
            return took

        async def cancel_bare() -> float:
            path = folder / f"fifo{next(numbers)}"
            os.mkfifo(path)
            reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            call = raw(str(path).encode())
            async for _ in call:
                break
            assert os.read(reading, 2) == b"+"
            began = time.perf_counter()
            call.cancel()
            await _readable(reading)
            took = time.perf_counter() - began
            os.close(reading)
            return took

        bare = "cancel of a bare handler"
        actions: dict[str, Action] = {"cancel, until nothing is left": cancel, bare: cancel_bare}
        report("cancel", await interleaved(actions, rounds=40), [bare])


async def _kill(suite: Suite) -> None:
    async def kill_tree() -> float:
        name = _name()
        execution = await suite.start("ending", "sh", "-c", _script(name))
        await _all(name, DAEMONS + 1)
        request = pb.SignalExecutionRequest(
            name=execution, signal=executor_pb2.SIGNAL_KILL, scope=executor_pb2.SIGNAL_SCOPE_TREE
        )
        began = time.perf_counter()
        await suite.executions.SignalExecution(request, metadata=suite.metadata)
        took = time.perf_counter() - began
        assert not _named(name)
        return took

    actions: dict[str, Action] = {"signal KILL to the tree": kill_tree}
    if engine := suite.engine:

        async def docker_kill() -> float:
            name = _name()
            container = await engine.create()
            await engine.start(container)
            await engine.execute(container, "sh", "-c", _script(name), detach=True)
            await _all(name, DAEMONS + 1)
            began = time.perf_counter()
            await engine.kill(container)
            took = time.perf_counter() - began
            assert not _named(name)
            await engine.remove(container)
            return took

        actions["docker kill"] = docker_kill
    medians = await interleaved(actions, rounds=7, warmup=1)
    report(f"kill of {DAEMONS} daemons that ignore TERM", medians, ["docker kill"])
    print(f"  in {medians['signal KILL to the tree'] * 1000:.1f} ms, nothing left")


def _script(name: str) -> str:
    return _STUBBORN.replace("DAEMONS", str(DAEMONS)).replace("NAME", name)


def _name() -> str:
    """For how long to sleep, which nobody else does."""
    return f"9{secrets.randbelow(10**9):09}"


def _named(name: str) -> list[int]:
    """Pids of all that sleep so long."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = each.read_bytes()
        except OSError:
            continue
        if line == f"sleep\0{name}\0".encode():
            found.append(int(each.parent.name))
    return found


async def _all(name: str, many: int) -> list[int]:
    while len(found := _named(name)) < many:  # noqa: ASYNC110 # Others are counted.
        await asyncio.sleep(0.01)
    return found


async def _readable(descriptor: int) -> None:
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
