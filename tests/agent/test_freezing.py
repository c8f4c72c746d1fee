"""Sandboxes that are held still: by control groups as root, by signals as an ordinary user."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from agent.client import Scope
from agent.launcher import cgroups
from agent.launcher.stopping import Stopping, go_on
from agent.launcher_client import LauncherClient, LauncherError, PeerGone
from agent.protocol import Facts, Limits, State
from tests.agent.node import Box, Node, close, command, new_uid, python, until

COUNT = (
    "import os, threading\n"
    "def count(name):\n"
    "    n = 0\n"
    "    while True:\n"
    "        n += 1\n"
    "        with open(f'/workspace/{name}', 'w') as file: file.write(str(n))\n"
    "for n in range(3):\n"
    "    if os.fork() == 0:\n"
    "        for m in range(2): threading.Thread(target=count, args=(f'{n}-{m}',)).start()\n"
    "        break\n"
    "else:\n"
    "    if os.fork() == 0:\n"
    "        os.setsid()\n"
    "        while True:\n"
    "            if os.fork() == 0: os._exit(0)\n"
    "            os.wait()\n"
    "    os.wait()\n"
)
"""Threads that write all the time, and one that forks all the time in a session of its own."""
FRESH = 2.0
"""Seconds for which one that was just started waits, which pass on a slow machine before it is
asked."""


@asynccontextmanager
async def busy(node: Node) -> AsyncIterator[Box]:
    async with node.sandbox() as box:
        sinks = box.sinks("busy")
        async with box.agent() as agent:
            await agent.start("busy", command(*python(COUNT)), sinks)
        close(sinks)
        await until(lambda: len(list(box.worktree.iterdir())) == 6)
        yield box


def counts(box: Box) -> list[str]:
    return [f"{path.name} {path.read_text()}" for path in sorted(box.worktree.iterdir())]


async def moves(box: Box) -> None:
    for path in box.worktree.iterdir():
        before = path.read_text()
        async with asyncio.timeout(30):
            while path.read_text() in ("", before):  # noqa: ASYNC110 # Nobody tells us.
                await asyncio.sleep(0.002)


async def holds_still(box: Box) -> None:
    """Nothing is written in a time in which a busy one writes many times."""
    before = counts(box)
    others = Path(box.node.folder / f"busy-{new_uid()}")
    for number in range(200):
        others.write_text(str(number))
        await asyncio.sleep(0.001)
    assert counts(box) == before


async def test_everything_holds_still_until_it_is_thawed(node: Node) -> None:
    async with busy(node) as box, node.launcher() as launcher:
        for _ in range(3):
            assert await launcher.freeze(box.uid, 60)
            await holds_still(box)
            assert await launcher.thaw(box.uid)
            await moves(box)
        assert not await launcher.thaw(box.uid)


async def test_how_is_told(node: Node) -> None:
    async with node.launcher() as launcher:
        facts = await launcher.facts()
    if node.mode == "user":
        assert facts.freeze == "signals"
    assert facts.freeze in ("cgroup_v1", "cgroup_v2", "signals")
    assert {"spec", "freeze"}.isdisjoint(facts.to_json(1))
    assert Facts.from_json(facts.to_json(1)).freeze == ""


async def test_nothing_is_frozen_where_nothing_runs(node: Node) -> None:
    async with node.launcher() as launcher:
        uid = new_uid()
        assert not await launcher.freeze(uid, 1)
        assert not await launcher.thaw(uid)


async def test_it_goes_on_by_itself(node: Node) -> None:
    async with busy(node) as box, node.launcher() as launcher:
        assert await launcher.freeze(box.uid, 0.3)
        await moves(box)
        assert not await launcher.thaw(box.uid)


async def test_the_later_end_counts(node: Node) -> None:
    async with busy(node) as box, node.launcher() as launcher, node.launcher() as other:
        began = time.monotonic()
        assert await launcher.freeze(box.uid, 1.0)
        assert await other.freeze(box.uid, 0.01)
        await moves(box)
        assert time.monotonic() - began > 0.95


async def test_one_that_is_started_is_frozen_when_it_runs(node: Node) -> None:
    async with node.sandbox() as box, node.launcher() as launcher:
        assert await launcher.freeze(box.uid, 60)
        assert (await launcher.inspect(box.uid)).pid
        assert await launcher.thaw(box.uid)
        assert (await box.run("echo", "on")).stdout == b"on\n"


async def test_a_frozen_one_can_be_killed(node: Node) -> None:
    async with busy(node) as box, node.launcher() as launcher:
        assert await launcher.freeze(box.uid, 60)
        began = time.monotonic()
        assert await launcher.kill(box.uid)
        assert time.monotonic() - began < 60
        assert (await launcher.inspect(box.uid)).state is State.ABSENT
        assert not await launcher.freeze(box.uid, 1)


async def test_another_launcher_thaws_what_it_finds(own_node: Node) -> None:
    node = own_node
    async with busy(node) as box:
        async with node.launcher() as launcher:
            assert await launcher.freeze(box.uid, 300)
        node.kill()
        await holds_still(box)
        node.start()
        await moves(box)
        async with node.launcher() as launcher:
            assert await launcher.freeze(box.uid, 300)
        node.stop()
        await moves(box)
        node.start()
        async with node.launcher() as launcher:
            assert (await launcher.inspect(box.uid)).state is State.RUNNING


async def test_requests_wait_meanwhile(node: Node) -> None:
    async with busy(node) as box, node.launcher() as launcher, box.agent() as agent:
        assert await launcher.freeze(box.uid, 60)
        listing = asyncio.create_task(agent.listing())
        running = asyncio.create_task(box.run("echo", "waited"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(running), 0.5)
        await launcher.thaw(box.uid)
        assert (await running).stdout == b"waited\n"
        assert [each.execution_id for each in (await listing).executions if not each.ended] == [
            "busy"
        ]


async def test_what_was_stopped_before_stays_so(node: Node) -> None:
    async with node.sandbox() as box, node.launcher() as launcher:
        script = "sleep 1000 & kill -STOP $!; echo $!; exec 1>&- 2>&-; wait"
        sinks = box.sinks("x")
        async with box.agent() as agent:
            await agent.start("x", command("sh", "-c", script), sinks)
        look = "cat /proc/[0-9]*/status | grep -c 'State:.T'"
        await _until_stopped(box, look)
        assert await launcher.freeze(box.uid, 60)
        await launcher.thaw(box.uid)
        assert (await box.run("sh", "-c", look)).stdout == b"1\n"
        close(sinks)


async def _until_stopped(box: Box, look: str) -> None:
    async with asyncio.timeout(30):
        while (await box.run("sh", "-c", look)).stdout != b"1\n":
            pass


async def test_one_in_which_nothing_runs_leaves_when_it_is_told_to(node: Node) -> None:
    async with node.sandbox() as box, node.launcher() as launcher:
        await box.run("true")
        async with box.agent() as bystander, box.agent() as agent:
            sinks = box.sinks("running")
            await agent.start("running", command("sleep", "1000"), sinks)
            assert not await agent.leave()
            await agent.signal("running", signal.SIGKILL, Scope.TREE)
            close(sinks)
            assert await agent.leave()
            await asyncio.wait_for(bystander.gone.wait(), 30)
        await until_absent(launcher, box.uid)


async def test_one_that_was_just_started_waits_for_its_first_command(node: Node) -> None:
    began = time.monotonic()
    async with node.sandbox() as box, box.agent() as agent:
        leaves = await agent.leave()
        assert not leaves or time.monotonic() - began > FRESH
        async with asyncio.timeout(30):
            while not leaves:
                leaves = await agent.leave()


async def test_what_was_left_in_the_background_keeps_it(node: Node) -> None:
    async with node.sandbox() as box:
        await box.run("sh", "-c", "sleep 1000 > /dev/null 2>&1 &")
        async with box.agent() as agent:
            assert not await agent.leave()
        assert (await box.run("echo", "on")).stdout == b"on\n"


async def until_absent(launcher: LauncherClient, uid: str) -> None:
    async with asyncio.timeout(30):
        while (await launcher.inspect(uid)).state is not State.ABSENT:
            pass


async def test_many_are_frozen_at_once(node: Node) -> None:
    async with busy(node) as one, busy(node) as two, node.launcher() as launcher:
        asked = [launcher.freeze(box.uid, 60) for box in (one, two) * 5]
        assert all(await asyncio.gather(*asked))
        await holds_still(one)
        await holds_still(two)
        await launcher.thaw(one.uid)
        await moves(one)
        await holds_still(two)


async def test_a_request_without_sense_is_refused(node: Node) -> None:
    async with node.launcher() as launcher:
        with pytest.raises((LauncherError, PeerGone)):
            await launcher.freeze(new_uid(), "soon")  # type: ignore[arg-type]


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        ["sh", "-c", "sleep 1000 & sleep 1000 & wait"], start_new_session=True
    )
    yield process
    with suppress(ProcessLookupError):  # It may have been killed before it had children.
        os.killpg(process.pid, signal.SIGCONT)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def states(root: int) -> list[str]:
    found = [root, *map(int, Path(f"/proc/{root}/task/{root}/children").read_text().split())]
    return [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in found]


async def test_signals_stop_a_tree_and_let_it_go(
    sleeper: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    await until(lambda: len(states(sleeper.pid)) == 3)
    stopping = Stopping(sleeper.pid, tmp_path / "stopped")
    await until(stopping.look)
    assert states(sleeper.pid) == ["T", "T", "T"]
    assert len((tmp_path / "stopped").read_text().splitlines()) == 3
    assert go_on(tmp_path / "stopped")
    await until(lambda: states(sleeper.pid) == ["S", "S", "S"])
    assert not go_on(tmp_path / "stopped")


def test_a_pid_of_another_process_is_left_alone(
    sleeper: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    os.kill(sleeper.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED | os.WNOWAIT)
    (tmp_path / "stopped").write_text(f"{sleeper.pid} 1\nnonsense\n0 0\n")
    assert go_on(tmp_path / "stopped")
    assert states(sleeper.pid)[0] == "T"


async def test_the_freezer_of_version_1(sleeper: "subprocess.Popen[bytes]") -> None:
    own = next(cgroups._own_groups(("freezer",)), None)  # noqa: SLF001
    name = f"cove-test-{new_uid()}"
    freezer = own and cgroups._prepare(own, name)  # noqa: SLF001
    if not freezer or not freezer.controllers or freezer.version != 1:
        pytest.skip("no freezer of version 1 that we may use")
    groups = cgroups.Cgroups([], freezer)
    try:
        assert groups.freezes == "cgroup_v1"
        assert groups.paths("a") == ()
        groups.create("a", Limits())
        (freezer.base / "a" / cgroups.AGENT / "cgroup.procs").write_text(str(sleeper.pid))
        assert groups.freeze("a", on=True)
        await until(lambda: groups.frozen("a"))
        os.kill(sleeper.pid, signal.SIGKILL)
        assert sleeper.poll() is None
        assert groups.freeze("a", on=False)
        sleeper.wait(30)
        assert not groups.freeze("a", on=False)
        await until(lambda: groups.remove("a"))
    finally:
        groups.close()
