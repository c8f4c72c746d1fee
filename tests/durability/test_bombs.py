"""What a command does to its workspace stays there, and ends with it."""

import asyncio
import os
import secrets
import signal
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cove import executions
from cove.client import Client
from cove.executor.v1.executor_pb2 import Execution
from cove.status import CoveError
from cove.workspace import Workspace
from tests.durability.bombs import BOMBS, LIMITS, Bomb, options
from tests.durability.bombs import named as ended_by
from tests.support.processes import named
from tests.support.suite import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.long]

ROUNDS = int(os.environ.get("COVE_TREE_ROUNDS", "100"))
"""Of `make test-long`."""
DAEMONS = 180
SLOWER = 3.0
"""Times the usual that a neighbour's `true` may take, in one of TRIES, as others are here too."""
TRIES = 3
COUNT = 15
TAKEN = 1 << 20
"""Bytes that a command which reads nothing is given at most."""

DAEMON = """
import os, signal, sys
stubborn = "trap '' TERM HUP INT; [ $0 = stopped ] && kill -STOP $$; while :; do sleep 60; done"
for number in range(int(sys.argv[2])):
    if os.fork():
        continue
    os.setsid()
    if os.fork():
        os._exit(0)
    kind = "stopped" if number % 3 == 0 else "running"
    os.execve("/bin/sh", [sys.argv[1], "-c", stubborn, kind], {"PATH": "/bin"})
while True:
    signal.pause()
"""


@pytest_asyncio.fixture(loop_scope="module")
async def bombed(cove: Client, repository: Path) -> AsyncIterator[Workspace]:
    """A workspace with limits."""
    made = await cove.workspaces.create(
        repository=f"file://{repository}",
        limits=LIMITS,
    )
    yield made
    await made.delete(force=True, allow_missing=True)


async def usual(workspace: Workspace, ends: "asyncio.Task[Execution] | None" = None) -> float:
    """Median of the seconds that `true` takes there, at least until the task `ends`."""
    times: list[float] = []
    while len(times) < COUNT or (ends and not ends.done()):
        began = time.monotonic()
        assert (await workspace.execute("true")).exit_status == 0
        times.append(time.monotonic() - began)
    return statistics.median(times)


async def explode(workspace: Workspace, bomb: Bomb) -> Execution:
    """How it ended."""
    begun = await workspace.start("python3", "-c", bomb.code, **options(bomb))
    writing = asyncio.ensure_future(write_on(begun)) if bomb.written_to else None
    ended = await begun.wait()
    if writing:
        with pytest.raises(CoveError):  # It has ended.
            await writing
        assert ended.input_bytes <= TAKEN
    return ended


async def write_on(execution: executions.Execution) -> None:
    """Write to its input for ever; memory of a service is not what takes it."""
    while True:
        await execution.write(bytes(1 << 18))


async def kill_trees(workspace: Workspace, rounds: int) -> None:
    """Daemons that ignore TERM, in sessions of their own, without parent and mark; some stopped."""
    for _ in range(rounds):
        name = f"runaway-{secrets.token_hex(4)}"
        execution = await workspace.start("python3", "-c", DAEMON, name, str(DAEMONS))
        await until(lambda name=name: len(named(name)) == DAEMONS, "all run", 60)  # type: ignore[misc]
        began = time.monotonic()
        ended = await execution.signal(signal.SIGKILL, scope="tree")
        took = time.monotonic() - began
        assert named(name) == []
        assert ended.exit.signal.number == signal.SIGKILL
    print(f"{DAEMONS} daemons of the last round ended in {took:.3f} s")  # noqa: T201


@pytest.mark.timeout(1800)
async def test_kill_of_a_tree_leaves_nobody_ever(workspace: Workspace) -> None:
    if os.geteuid() != 0:
        pytest.skip("exact only where there are control groups")
    await kill_trees(workspace, ROUNDS)


@pytest.mark.timeout(1000)
@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_is_named_and_slows_no_neighbour(
    bombed: Workspace, neighbour: Workspace, name: str
) -> None:
    for each in (bombed, neighbour):
        await each.execute("true")
    bomb = BOMBS[name]
    slower: list[float] = []
    while not slower or (min(slower) > SLOWER and len(slower) < TRIES):
        before = await usual(neighbour)
        exploding = asyncio.ensure_future(explode(bombed, bomb))
        slower.append(await usual(neighbour, exploding) / before)
        assert ended_by((await exploding).exit) == bomb.ends
        back = await bombed.execute("sh", "-c", "rm -f filling-*; echo back", timeout=20)
        assert back.stdout == b"back\n"
    print(name, [f"{each:.2f}" for each in slower], "times the usual")  # noqa: T201
    assert min(slower) <= SLOWER, slower


@pytest.mark.timeout(120)
async def test_who_kills_everybody_is_alone_and_no_neighbour_is_touched(
    bombed: Workspace, neighbour: Workspace
) -> None:
    others = [await bombed.start("sleep", "3600") for _ in range(3)]
    beside = await neighbour.start("sleep", "3600")
    await explode(bombed, BOMBS["kills everybody"])
    for each in others:
        assert (await each.wait()).exit.signal.number == signal.SIGKILL
    assert not (await beside.refresh()).exit.WhichOneof("reason")
    await beside.signal(signal.SIGKILL, scope="tree")
