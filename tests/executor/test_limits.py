"""Limits of executions and environments, real ones: each contains, and is named in the exit."""

import asyncio
import os
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.executor.v1 import executor_pb2 as pb
from tests.executor.node import Caller, Node, Sandbox, refused, until

_MIB = 1 << 20
_WHICH = pb.Exit.Limited
groups = pytest.mark.skipif(os.geteuid() != 0, reason="control groups belong to root")

PYTHON = "exec \"$(command -v python3 || echo /.cove/python/bin/python3)\" -I -c '{}'"
BOMB = PYTHON.format("a = [bytearray(1 << 20) for _ in range(4096)]")

_FORKING = r"import os\nwhile True:\n try: os.fork()\n except OSError: pass"
FORKS = PYTHON.format(f'exec("{_FORKING}")')


def _limits(**limits: Any) -> dict[str, Any]:
    return {"limits": pb.ExecutionLimits(**limits)}


async def _run(caller: Caller, box: Sandbox, script: str, **spec: Any) -> pb.Exit:
    return (await caller.execute(box, script, **spec)).execution.exit


@groups
async def test_memory(caller: Caller, box: Sandbox) -> None:
    ones = _limits(memory_bytes=32 * _MIB)
    alone, child, carried, many = await asyncio.gather(
        _run(caller, box, BOMB, **ones),
        _run(caller, box, f"({BOMB}); exit $?", **ones),
        _run(caller, box, f"({BOMB}); echo went on", **ones),
        _run(caller, box, f"for i in 1 2 3 4; do ({BOMB}) & done; wait", **ones),
    )
    assert alone.limit.which == _WHICH.WHICH_MEMORY
    assert child.limit.which == _WHICH.WHICH_MEMORY
    assert (carried.WhichOneof("reason"), carried.code) == ("code", 0)
    assert (many.WhichOneof("reason"), many.code) == ("code", 0)
    assert alone.usage.oom_kills == carried.usage.oom_kills == 1
    assert many.usage.oom_kills >= 4
    assert many.usage.peak_memory_bytes <= 33 * _MIB
    assert (await _run(caller, box, "true")).usage.oom_kills == 0


@groups
async def test_memory_of_the_environment(node: Node, caller: Caller, box: Sandbox) -> None:
    async with node.sandbox(memory_bytes=64 * _MIB) as small:
        end = await _run(caller, small, f"({BOMB}); echo went on")
        assert (end.WhichOneof("reason"), end.usage.oom_kills) == ("code", 1)
        assert (await _run(caller, small, BOMB)).limit.which == _WHICH.WHICH_MEMORY
        assert (await _run(caller, small, "true")).code == 0
        assert (await _run(caller, box, "true")).usage.oom_kills == 0


@groups
async def test_processes(caller: Caller, box: Sandbox) -> None:
    spawn = "for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; wait"
    few = await _run(caller, box, spawn, **_limits(processes=6))
    assert few.WhichOneof("reason") == "code"
    assert few.code != 0
    assert few.usage.forks_refused == 1
    assert few.usage.peak_processes == 6
    end = await _run(caller, box, FORKS, **_limits(processes=30))
    assert end.limit.which == _WHICH.WHICH_PIDS
    assert end.usage.forks_refused >= 1000
    assert (await _run(caller, box, "true")).code == 0


@groups
async def test_a_fork_bomb_is_named_where_only_its_environment_has_a_limit(
    node: Node, caller: Caller
) -> None:
    async with node.sandbox(pids=30) as box:
        end = await _run(caller, box, FORKS)
        assert end.limit.which == _WHICH.WHICH_PIDS
        assert end.usage.forks_refused >= 1000
        assert (await _run(caller, box, "true")).code == 0


@groups
async def test_processor(caller: Caller, box: Sandbox) -> None:
    busy = PYTHON.format("while True: pass")
    second = Duration(seconds=1)
    one, two, slow = await asyncio.gather(
        _run(caller, box, busy, **_limits(cpu_time=second)),
        _run(caller, box, f"for i in 1 2 3; do ({busy}) & done; wait", **_limits(cpu_time=second)),
        _run(caller, box, busy, timeout=Duration(seconds=2), **_limits(milli_cpus=100)),
    )
    assert one.limit.which == two.limit.which == _WHICH.WHICH_CPU
    assert slow.timed_out.which == pb.Exit.TimedOut.WHICH_TIMEOUT
    assert slow.usage.cpu_time.ToTimedelta().total_seconds() < 1


async def test_output_and_silence(caller: Caller, box: Sandbox) -> None:
    flood = await caller.execute(box, "yes", output_limit=100_000)
    assert flood.execution.exit.limit.which == _WHICH.WHICH_OUTPUT
    assert flood.execution.exit.output_bytes == len(flood.stdout.text) == 100_000
    assert flood.execution.spec.output_limit == 100_000
    for pause in ("", "sleep 0.001; "):
        burst = await caller.execute(box, f"printf 0; {pause}printf 123456789abc", output_limit=10)
        assert burst.execution.exit.limit.which == _WHICH.WHICH_OUTPUT
    idle = Duration(seconds=1, nanos=500_000_000)
    script = "for i in 1 2 3; do echo $i; sleep 0.1; done; exec sleep 100"
    silent = await caller.execute(box, script, idle_output_timeout=idle)
    assert silent.stdout.text == "1\n2\n3\n"
    assert silent.execution.exit.timed_out.which == pb.Exit.TimedOut.WHICH_IDLE_OUTPUT
    assert silent.execution.spec.idle_output_timeout == idle


async def test_open_files(caller: Caller, box: Sandbox) -> None:
    """The lower one of the execution\'s limit and the environment\'s counts."""

    async def told(own: int, environment: int) -> str:
        request = pb.ExecuteRequest(
            handle=box.handle,
            spec=pb.ExecutionSpec(script="ulimit -n", **_limits(open_files=own)),
            environment_limits=pb.EnvironmentLimits(open_files=environment),
        )
        return (await caller.executions.Execute(request)).stdout.text.strip()

    assert [await told(20, 0), await told(20, 10), await told(0, 30)] == ["20", "10", "30"]


async def test_disk(node: Node, caller: Caller, box: Sandbox) -> None:
    async def run(script: str) -> pb.Exit:
        request = pb.ExecuteRequest(
            handle=box.handle,
            spec=pb.ExecutionSpec(script=script, timeout=Duration(seconds=40)),
            environment_limits=pb.EnvironmentLimits(disk_bytes=8 * _MIB),
        )
        return (await caller.executions.Execute(request)).execution.exit

    grow = "i=0; while :; do i=$((i+1)); head -c 500000 /dev/urandom > {}/f$i; sleep 0.05; done"
    assert (await run(grow.format("/workspace"))).limit.which == _WHICH.WHICH_DISK
    assert (await run("sleep 1.3; rm f*")).code == 0  # Who makes room is not ended for it.
    one = await run("exec dd if=/dev/zero of=big bs=1M")
    assert one.limit.which == _WHICH.WHICH_DISK
    assert (box.tree / "big").stat().st_size == 8 * _MIB
    assert (await run("rm big")).code == 0
    left = await run(f"({grow.format('/tmp')}) > /dev/null 2>&1 &")
    assert left.code == 0
    await until(lambda: nothing_runs(caller, box), 30)


async def nothing_runs(caller: Caller, box: Sandbox) -> bool:
    answer = await caller.execute(box, "grep -la '[u]random' /proc/[0-9]*/cmdline")
    return not answer.stdout.text


@groups
async def test_usage_is_watched(node: Node, caller: Caller, box: Sandbox) -> None:
    hold = PYTHON.format('a = bytearray(40 << 20); print(len(a), flush=True); open("in").read()')
    await caller.start(box, "holds", f"mkfifo in; sleep 100 & {hold}")
    await caller.start(box, "idle", "exec sleep 100")

    def watch(name: str) -> Any:
        interval = Duration(nanos=100_000_000)
        return caller.executions.WatchUsage(pb.WatchUsageRequest(name=name, interval=interval))

    samples = []
    async for event in watch(box.parent):
        samples.append(event.sample)
        if event.sample.usage.memory_bytes > 40 * _MIB and event.sample.usage.output_bytes:
            break
    assert samples[-1].running
    seen = []
    async for event in watch(box.name("holds")):
        seen.append(event)
        if len(seen) == 3:
            await caller.start(box, "feed", "echo > in")
    assert seen[0].sample.usage.processes == 2
    assert 40 * _MIB < seen[0].sample.usage.memory_bytes < 80 * _MIB
    assert seen[-1].exit.code == 0
    assert seen[-1].exit.usage.peak_memory_bytes > 40 * _MIB
    assert not seen[-2].sample.running
    assert (await caller.get(box, "idle")).usage.processes == 1
    await node.end(box)
    async for event in watch(box.parent):
        assert not event.sample.running
        break
    async with refused(grpc.StatusCode.NOT_FOUND, ErrorReason.ERROR_REASON_EXECUTION_NOT_FOUND):
        await anext(aiter(watch(box.name("nothing"))))


async def test_capabilities(caller: Caller) -> None:
    answer = await caller.executions.GetCapabilities(pb.GetCapabilitiesRequest())
    found = answer.capabilities
    assert found.memory
    assert found.processes
    assert found.retention.execution_bytes == 256 * _MIB
    assert found.retention.age.seconds == 7 * 86400


@pytest.mark.skipif(os.geteuid() == 0, reason="root has control groups")
async def test_an_ordinary_user_has_resource_limits(caller: Caller, box: Sandbox) -> None:
    memory = _limits(memory_bytes=32 * _MIB)
    answer = await caller.execute(box, BOMB, **memory)
    assert answer.execution.exit.code == 1
    assert "MemoryError" in answer.stderr.text
    second = Duration(seconds=1)
    busy = PYTHON.format("while True: pass")
    end = await _run(caller, box, busy, **_limits(cpu_time=second))
    assert end.limit.which == _WHICH.WHICH_CPU
    bomb = _limits(processes=30)
    end = await _run(caller, box, FORKS, timeout=Duration(seconds=2), **bomb)
    assert end.timed_out.which == pb.Exit.TimedOut.WHICH_TIMEOUT
    assert (await _run(caller, box, "true")).code == 0
    async with refused(
        grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.ERROR_REASON_CAPABILITY_MISSING
    ):
        await caller.execute(box, "true", **_limits(milli_cpus=500))
    hold = PYTHON.format("a = bytearray(40 << 20); import time; time.sleep(100)")
    await caller.start(box, "holds", f"sleep 100 & {hold}")

    async def held(name: str) -> bool:
        watch = caller.executions.WatchUsage(pb.WatchUsageRequest(name=name))
        usage = (await anext(aiter(watch))).sample.usage
        return usage.memory_bytes > 40 * _MIB and usage.processes >= 2

    await until(lambda: held(box.name("holds")))
    await until(lambda: held(box.parent))
