"""Limits, use and retention as callers see them: over gRPC, HTTP, the SDK, and `cove`."""

import asyncio
import json

import httpx
import pytest

from cove import ExecutionLimits, Exit, Gap, sync
from cove.executor.v1 import executor_pb2
from cove.provider.v1 import provider_pb2
from cove.registry.v1 import registry_pb2
from tests.support.suite import Suite

pytestmark = pytest.mark.asyncio(loop_scope="package")

_MIB = 1 << 20
_BOMB = "python3 -c 'a = [bytearray(1 << 20) for _ in range(4096)]'"


async def test_capabilities_say_what_is_enforced_and_kept(
    suite: Suite, http: httpx.AsyncClient
) -> None:
    async with suite.client() as cove:
        told = await cove.capabilities()
    assert told.provider.disk == provider_pb2.Capabilities.DISK_SOFT
    assert told.provider.open_files == provider_pb2.Capabilities.LIMIT_METHOD_RLIMIT
    assert told.executor.memory != executor_pb2.Capabilities.LIMIT_METHOD_UNSPECIFIED
    answer = (await http.get("/capabilities")).json()
    assert answer["executor"]["retention"]["executionBytes"] == str(256 * _MIB)
    done = await suite.cove("capabilities")
    assert "256 MiB an execution" in done.text


async def test_a_command_is_limited_whoever_asks(suite: Suite, http: httpx.AsyncClient) -> None:
    async with suite.client() as cove, await cove.workspaces.create(id="limited") as workspace:
        flood = await workspace.execute("yes", output_limit=5000)
        assert flood.execution.exit.limit.which == Exit.Limited.WHICH_OUTPUT
        assert len(flood.stdout) == 5000
        assert flood.exit_status == 137
        silent = await workspace.execute("sleep", "100", idle_output_timeout=0.2)
        assert silent.execution.exit.timed_out.which == Exit.TimedOut.WHICH_IDLE_OUTPUT
        limits = ExecutionLimits(open_files=20)
        assert (await workspace.execute(script="ulimit -n", limits=limits)).text == "20\n"
        answer = await http.post(
            "/workspaces/limited/execute",
            json={"spec": {"script": "ulimit -n", "limits": {"openFiles": 30}}},
        )
        assert answer.json()["stdout"]["text"] == "30\n"
        assert answer.json()["execution"]["spec"]["limits"] == {"openFiles": 30}
        options = ("--open-files", "40", "--cpu-time", "60", "--timeout", "1m")
        done = await suite.cove("exec", *options, "limited", "--script", "ulimit -n")
        assert (done.status, done.text) == (0, "40\n")
        done = await suite.cove("exec", "--output-limit", "10", "limited", "yes")
        assert (done.status, len(done.stdout)) == (137, 10)
        assert "ended by the limit of its output" in done.errors
        done = await suite.cove("exec", "--idle-timeout", "0.2", "limited", "sleep", "9")
        assert done.status == 124
        assert "timeout of silence" in done.errors


async def test_memory_and_processes(suite: Suite) -> None:
    async with suite.client() as cove, await cove.workspaces.create(id="small"):
        methods = executor_pb2.Capabilities.LimitMethod
        told = (await cove.capabilities()).executor.memory
        if told == methods.LIMIT_METHOD_RLIMIT:
            pytest.skip("no control groups here")
        done = await suite.cove("exec", "--memory", "32MiB", "small", "--script", _BOMB)
        assert done.status == 137
        assert "ended by the limit of memory" in done.errors
        script = f"{_BOMB}; echo went on"
        done = await suite.cove("exec", "--memory", "32MiB", "small", "--script", script)
        assert (done.status, done.text) == (0, "went on\n")
        assert "1 of its processes was killed for lack of memory" in done.errors
        forks = "for i in 1 2 3 4 5 6; do sleep 9 & done"
        done = await suite.cove("exec", "--pids", "4", "small", "--script", forks)
        assert done.status not in (0, 137)
        assert "a further process was refused to it once" in done.errors
        assert (await suite.cove("exec", "--cpu", "0.5", "small", "true")).status == 0


async def test_the_disk_of_a_workspace(suite: Suite) -> None:
    done = await suite.cove("create", "--id", "full", "--disk", "8MiB", "--open-files", "50")
    assert done.status == 0
    grow = "i=0; while :; do i=$((i+1)); head -c 400000 /dev/urandom > f$i; sleep 0.05; done"
    done = await suite.cove("exec", "full", "--script", grow)
    assert done.status == 137
    assert "ended by the limit of the disk" in done.errors
    assert (await suite.cove("exec", "full", "--script", "rm f*; ulimit -n")).text == "50\n"
    shown = json.loads((await suite.cove("show", "full", "--json")).text)
    assert shown["spec"]["limits"] == {"diskBytes": str(8 * _MIB), "openFiles": 50}
    assert (await suite.cove("rm", "--force", "full")).status == 0


async def test_use_is_told_and_watched(suite: Suite, http: httpx.AsyncClient) -> None:
    async with suite.client() as cove, await cove.workspaces.create(id="used") as workspace:
        async for sample in workspace.usage(0.1):
            assert not sample.running  # Nothing is started for it.
            break
        script = "until [ -e go ]; do sleep 0.1; done; echo x"
        execution = await workspace.start(script=script)
        samples = []
        async for sample in execution.usage(0.1):
            samples.append(sample)
            if len(samples) == 2:
                await workspace.write("go", b"")
        assert [sample.running for sample in samples] == [True] * (len(samples) - 1) + [False]
        assert samples[0].usage.processes >= 1
        assert samples[0].usage.memory_bytes > 0
        assert samples[-1].usage.output_bytes == 2
        async for sample in workspace.usage(0.1):
            assert sample.running
            break
        lines = []
        path = f"/workspaces/used/executions/{execution.id}/usage?interval=0.2s"
        async with http.stream("GET", path) as answer:
            assert answer.status_code == 200
            lines = [json.loads(line) async for line in answer.aiter_lines()]
        assert lines[0]["sample"]["usage"]["outputBytes"] == "2"
        assert lines[-1]["exit"]["usage"]["outputBytes"] == "2"
        async with http.stream("GET", "/workspaces/used/usage?interval=0.1s") as answer:
            async for line in answer.aiter_lines():
                assert json.loads(line)["sample"]["running"]
                break
        refused = await http.get("/workspaces/used/usage?interval=0.01s")
        assert refused.status_code == 400


async def test_the_blocking_client(suite: Suite) -> None:
    def use() -> None:
        with sync.Client(suite.grpc, suite.token) as cove:
            workspace = cove.workspaces.create(id="blocking")
            execution = workspace.start("true", limits=ExecutionLimits(open_files=20))
            assert not list(execution.usage(0.1))[-1].running
            workspace.delete(force=True)

    await asyncio.to_thread(use)


async def test_what_no_host_can_do_is_refused(suite: Suite) -> None:
    """A limit of which the answer says in what field it is wrong."""
    done = await suite.cove("create", "--disk", "1")
    assert done.status == 1
    assert "disk_bytes" in done.errors
    async with suite.client() as cove, await cove.workspaces.create(id="odd") as workspace:
        done = await suite.cove("exec", "--memory", "1MiB", "odd", "true")
        assert done.status == 1
        assert "memory_bytes" in done.errors
        assert registry_pb2.Limits() == workspace.message.spec.limits
        assert Gap.REASON_RETENTION == 3
