"""Nothing of an output is lost, repeated or out of order, whatever breaks or dies meanwhile."""

import asyncio
import os
import random
import signal
from contextlib import suppress

import pytest

from agent.launcher_client import LauncherClient
from cove.client import Client
from cove.executions import Execution
from cove.executor.v1.executor_pb2 import Chunk
from cove.workspace import Workspace
from tests.durability.parts import BINARY, TEXT, Expected, breaking, held, lines, numbers
from tests.durability.test_bombs import kill_trees
from tests.support.suite import SERVICES, Suite, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

DISCONNECTS = int(os.environ.get("COVE_DISCONNECTS", "1000"))
KILLS = int(os.environ.get("COVE_SERVICE_KILLS", "100"))
"""Both of `make test-long`."""
FEW_DISCONNECTS, FEW_KILLS, FEW_ROUNDS = 24, 1, 2
READERS = 4
GROWTH = 16 << 20
LOST_WITHIN = 1.0
"""Seconds, in one of a few times: whoever is not told that the agent is gone looks after 30."""
TIMES = 5


async def break_readers(suite: Suite, workspace: Workspace, most: int, size: int) -> None:
    """Readers of `size` lines whose connections are reset, that many times in all."""
    execution = await workspace.start("seq", "-f", "line %.0f", "0", str(size - 1))
    async with breaking(suite.grpc) as (network, address):

        async def read() -> None:
            while network.broken < most:
                async with Client(address, suite.token, patience=60) as client:
                    its = client.workspaces.named(workspace.id).executions.named(execution.id)
                    expected = Expected(lines())
                    assert (await expected.follow(its)).code == 0

        await asyncio.gather(*(read() for _ in range(READERS)))
        assert network.broken >= most
    print(f"{network.broken} disconnects of {READERS} readers")  # noqa: T201


async def test_some_disconnects_lose_no_byte(suite: Suite, workspace: Workspace) -> None:
    await break_readers(suite, workspace, FEW_DISCONNECTS, 40_000)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_thousand_disconnects_lose_no_byte(suite: Suite, workspace: Workspace) -> None:
    await break_readers(suite, workspace, DISCONNECTS, 2_000_000)


async def kill_services(suite: Suite, workspace: Workspace, kills: int) -> None:
    """Executor and gateway, in the middle of two outputs that are followed all the time."""
    text = await workspace.start("python3", "-c", TEXT, "stop")
    binary = await workspace.start("python3", "-c", BINARY, "stop")
    made = {text.id: lines, binary.id: numbers}
    expected = {each.id: Expected(made[each.id]()) for each in (text, binary)}
    following = [asyncio.ensure_future(expected[each.id].follow(each)) for each in (text, binary)]
    dice = random.Random(kills)
    for _ in range(kills):
        for service in dice.sample(("executor", "gateway"), 2):
            before = {name: each.taken for name, each in expected.items()}
            await suite.kill(service)
            await until(
                lambda before=before: all(  # type: ignore[misc]
                    each.taken > before[name] for name, each in expected.items()
                ),
                "both outputs go on",
                60,
            )
    await workspace.write("stop", b"")
    ends = await asyncio.gather(*following)
    assert ends[0].code == 7
    assert ends[1].signal.number == signal.SIGKILL
    for each, end in zip((text, binary), ends, strict=True):
        again = Expected(made[each.id]())
        assert await again.follow(each) == end
        assert again.taken == expected[each.id].taken
    print({name: each.taken for name, each in expected.items()})  # noqa: T201


async def test_a_kill_of_executor_and_gateway_loses_no_byte(
    suite: Suite, workspace: Workspace
) -> None:
    await kill_services(suite, workspace, FEW_KILLS)


@pytest.mark.long
@pytest.mark.timeout(3000)
async def test_a_hundred_kills_of_executor_and_gateway_lose_no_byte(
    suite: Suite, workspace: Workspace
) -> None:
    await kill_services(suite, workspace, KILLS)


async def agent_pid(suite: Suite, workspace: Workspace) -> int:
    async with LauncherClient.connect(suite.runtime / "launcher") as launcher:
        return (await launcher.inspect(workspace.message.uid)).pid


async def test_a_killed_launcher_takes_nothing_with_it(suite: Suite, workspace: Workspace) -> None:
    execution = await workspace.start("python3", "-c", TEXT, "stop")
    expected = Expected(lines())
    following = asyncio.ensure_future(expected.follow(execution))
    before = suite.launcher_pid()
    os.kill(before, signal.SIGKILL)
    await until(lambda: suite.launcher_pid() not in (0, before), "the launcher is started again")
    seen = expected.taken
    await until(lambda: expected.taken > seen, "the output goes on")
    await workspace.write("stop", b"")
    assert (await following).code == 7
    left = await workspace.start("sh", "-c", "setsid sleep 3600 & sleep 3600")
    ended = await left.signal(signal.SIGKILL, scope="tree")
    assert ended.exit.signal.number == signal.SIGKILL


async def test_kill_of_a_tree_leaves_nobody(workspace: Workspace) -> None:
    if os.geteuid() != 0:
        pytest.skip("exact only where there are control groups")
    await kill_trees(workspace, FEW_ROUNDS)


async def test_what_a_dead_agent_ran_is_lost_at_once_with_all_it_wrote(
    suite: Suite, workspace: Workspace
) -> None:
    took: list[float] = []
    while not took or (min(took) > LOST_WITHIN and len(took) < TIMES):
        took.append(await kill_agent(suite, workspace))
    print(f"lost after {[f'{each:.2f}' for each in took]} s")  # noqa: T201
    assert min(took) <= LOST_WITHIN, took


async def kill_agent(suite: Suite, workspace: Workspace) -> float:
    """How long it takes until what it runs is lost, in seconds."""
    executions = [await workspace.start("python3", "-c", TEXT, "never") for _ in range(4)]
    expected = [Expected(lines()) for _ in executions]
    following = [
        asyncio.ensure_future(each.follow(its))
        for each, its in zip(expected, executions, strict=True)
    ]
    await until(lambda: all(each.taken > 10_000 for each in expected), "all write")
    pid = await agent_pid(suite, workspace)
    loop = asyncio.get_running_loop()
    began = loop.time()
    os.kill(pid, signal.SIGKILL)
    ends = await asyncio.gather(*following)
    took = loop.time() - began
    assert {end.WhichOneof("reason") for end in ends} == {"lost"}
    assert (await workspace.execute("echo", "back")).stdout == b"back\n"
    return took


async def all_of(execution: Execution, pause: float = 0.0) -> int:
    """How much it wrote, read with a pause after each event."""
    size = 0
    async for event in execution.output():
        size += len(event.data) if isinstance(event, Chunk) else 0
        await asyncio.sleep(pause)
    return size


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_gigabyte_costs_no_service_memory_whoever_reads(
    suite: Suite, workspace: Workspace
) -> None:
    """Nobody, a slow reader, twenty: each time the command is as fast, and memory as before."""
    gigabyte = 1 << 30
    small = await workspace.start("head", "-c", "64M", "/dev/zero")
    await asyncio.gather(*(all_of(small) for _ in range(20)))
    pids = {name: suite.pid(name) for name in SERVICES}
    pids |= {"launcher": suite.launcher_pid(), "agent": await agent_pid(suite, workspace)}
    before = {name: held(pid) for name, pid in pids.items()}
    most = dict(before)

    async def watch() -> None:
        while True:
            for name, pid in pids.items():
                most[name] = max(most[name], held(pid))
            await asyncio.sleep(0.2)

    watching = asyncio.ensure_future(watch())
    seconds = {}
    for readers in ("none", "slow", "twenty"):
        execution = await workspace.start("head", "-c", "1G", "/dev/zero")
        reading = []
        if readers == "slow":
            reading = [asyncio.ensure_future(all_of(execution, 0.05))]
        elif readers == "twenty":
            reading = [asyncio.ensure_future(all_of(execution)) for _ in range(20)]
        ended = (await execution.wait()).exit
        assert ended.output_bytes == gigabyte
        seconds[readers] = (ended.end_time.ToNanoseconds() - ended.start_time.ToNanoseconds()) / 1e9
        if readers == "twenty":
            assert await asyncio.gather(*reading) == [gigabyte] * 20
        for each in reading:
            each.cancel()
            with suppress(asyncio.CancelledError):
                await each
        await execution.delete()
    watching.cancel()
    growth = {name: (most[name] - before[name]) >> 10 for name in pids}
    print(f"seconds {seconds}, growth in KiB {growth}")  # noqa: T201
    assert max(growth.values()) << 10 <= GROWTH, growth
