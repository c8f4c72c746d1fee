"""What a command does to its workspace stays there, and ends with it."""

import os
import secrets
import signal
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cove.client import Client
from cove.registry.v1.registry_pb2 import Limits
from cove.workspace import Workspace
from tests.support.processes import named
from tests.support.suite import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.long]

ROUNDS = int(os.environ.get("COVE_TREE_ROUNDS", "100"))
"""Of `make test-long`."""
DAEMONS = 180
SLOWER = 3.0
"""Times the usual that a neighbour's `true` may take, in one of TRIES, as others are here too."""
TRIES = 3
PROCESSES = 400
MEMORY = 256 << 20

FORKS = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
EATS = "kept = []\nwhile True: kept.append(b'x' * (1 << 20))"
FILLS = """
import os, sys
data = os.urandom(1 << 20)
with open("filling", "wb", buffering=0) as file:
    while file.tell() < 4 << 30:
        file.write(data)
"""
FLOODS = "import os\ndata = bytes(1 << 16)\nwhile True: os.write(1, data)"
SHORT = """
import os
for _ in range(10000):
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
"""
KILLS = """
import os
try:
    while True:
        os.kill(-1, 9)
except ProcessLookupError:
    print("alone")
"""
CLOSES = "import os, time\nos.closerange(0, 1 << 16)\ntime.sleep(1)\nos._exit(3)"
STOPS = """
import os, signal
print("begun", flush=True)
while True:
    try:
        os.kill(-1, signal.SIGSTOP)
    except OSError:
        pass
"""
ENDLESS = {"forks": FORKS, "floods": FLOODS, "stops": STOPS, "eats": EATS, "fills": FILLS}

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
        limits=Limits(processes=PROCESSES, memory_bytes=MEMORY),
    )
    yield made
    await made.delete(force=True, allow_missing=True)


async def usual(workspace: Workspace, count: int = 15) -> float:
    """Median of the seconds that `true` takes there."""
    times = []
    for _ in range(count):
        began = time.monotonic()
        assert (await workspace.execute("true")).exit_status == 0
        times.append(time.monotonic() - began)
    return statistics.median(times)


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


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ENDLESS)
async def test_a_bomb_slows_no_neighbour(
    bombed: Workspace, neighbour: Workspace, name: str
) -> None:
    for each in (bombed, neighbour):
        await each.execute("true")
    slower: list[float] = []
    while not slower or (min(slower) > SLOWER and len(slower) < TRIES):
        before = await usual(neighbour)
        bomb = await bombed.start("python3", "-c", ENDLESS[name])
        slower.append(await usual(neighbour) / before)
        if name != "eats":
            await bomb.signal(signal.SIGKILL, scope="tree")
        reason = (await bomb.wait()).exit.WhichOneof("reason")
        assert reason == ("limit" if name == "eats" else "signal")
        assert (await bombed.execute("echo", "back", timeout=20)).stdout == b"back\n"
    print(name, [f"{each:.2f}" for each in slower], "times the usual")  # noqa: T201
    assert min(slower) <= SLOWER, slower


@pytest.mark.timeout(300)
async def test_what_looks_like_an_end_is_none(bombed: Workspace, neighbour: Workspace) -> None:
    """Ten thousand processes, a kill of everybody, closed descriptors, a stdin nobody reads."""
    other = await bombed.start("sleep", "3600")
    short = await bombed.execute("python3", "-c", SHORT, timeout=120)
    assert short.exit_status == 0
    closed = await bombed.execute("python3", "-c", CLOSES)
    assert (closed.exit_status, closed.stdout) == (3, b"")
    unread = await bombed.execute("sh", "-c", "sleep 0.2; exit 4")
    assert unread.exit_status == 4
    read = await bombed.execute("cat")
    assert (read.exit_status, read.stdout) == (0, b"")
    kills = await bombed.execute("python3", "-c", KILLS)
    assert (kills.exit_status, kills.stdout) == (0, b"alone\n")
    assert (await other.wait()).exit.signal.number == signal.SIGKILL
    assert (await bombed.execute("echo", "back")).stdout == b"back\n"
    assert (await neighbour.execute("echo", "fine")).stdout == b"fine\n"
