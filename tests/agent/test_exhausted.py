"""An agent and a launcher that have no descriptor to spare: they wait for one, and lose nothing."""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent import PROTOCOL_VERSION, formats, frames
from agent.channel import Channel, PeerGone
from agent.inside.connection import Connection
from agent.inside.execution import Execution
from agent.inside.log import Log
from agent.inside.tree import Tree
from agent.launcher.cgroups import Cgroups
from agent.launcher.freezing import Freezing
from agent.protocol import SandboxSpec, State
from agent.record import BLANK_RESULT, ExitKind, Result
from tests.agent.node import Node, new_uid
from tests.agent.test_gone_clients import nothing_can_be_opened

WINDOW = 0.6
"""Seconds in which it is seen how much a process works."""
FEW = 24
"""Descriptors that a launcher may have at first; each sandbox needs some."""


@contextmanager
def exhausted(pid: int) -> Iterator[None]:
    """Nothing can be opened by a process."""
    used = {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
    limits = Path(f"/proc/{pid}/limits").read_text()
    before = next(line.split()[3] for line in limits.splitlines() if "open files" in line)
    allow(pid, str(next(number for number in range(len(used) + 1) if number not in used)))
    try:
        yield
    finally:
        allow(pid, before)


def allow(pid: int, descriptors: str) -> None:
    """Limit them, as the user that it is: not everywhere root may."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    user, group = (
        next(each.split()[1] for each in lines if each.startswith(f"{name}:"))
        for name in ("Uid", "Gid")
    )
    drop = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    subprocess.run([*drop, "prlimit", f"--pid={pid}", f"--nofile={descriptors}:"], check=True)


def worked(pid: int) -> float:
    """Seconds of processor time that it had."""
    words = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


async def rests(pid: int, path: Path, kind: int, payload: bytes) -> None:
    """Whoever comes while it cannot accept makes it work little, and is served later."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.setblocking(False)
        with exhausted(pid):
            peer.connect(str(path))
            before = worked(pid)
            await asyncio.sleep(WINDOW)
            assert worked(pid) - before < WINDOW / 4
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(peer, frames.frame(PROTOCOL_VERSION, kind, 1, payload))
        async with asyncio.timeout(60):
            assert await loop.sock_recv(peer, 1 << 16)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to limit others")
async def test_an_agent_that_cannot_accept_rests(node: Node) -> None:
    async with node.sandbox() as box:
        async with box.agent() as agent:
            pid = agent.pid
        await rests(pid, box.socket, frames.HELLO, b"")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to limit others")
async def test_a_launcher_that_cannot_accept_rests(own_node: Node) -> None:
    async with own_node.launcher():
        pass
    assert own_node.process
    path = own_node.runtime / "launcher"
    await rests(own_node.process.pid, path, frames.LAUNCHER, b'{"verb": "list"}')


async def test_a_launcher_has_all_the_descriptors_that_it_may_have(own_node: Node) -> None:
    own_node.stop()
    own_node.wrapped = ("prlimit", f"--nofile={FEW}:4096")
    own_node.start()
    uids = [new_uid() for _ in range(FEW // 2)]
    async with own_node.launcher() as launcher:
        for uid in uids:
            assert (await launcher.start(SandboxSpec(uid=uid))).state is State.RUNNING
        assert {each.uid for each in await launcher.list()} == {*uids}


@contextmanager
def sleeping() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_command_is_ended_as_soon_as_that_can_be_seen_to(tmp_path: Path) -> None:
    log = os.open(tmp_path / "log", os.O_RDWR | os.O_APPEND | os.O_CREAT)
    result = os.open(tmp_path / "result", os.O_RDWR | os.O_CREAT)
    os.pwrite(result, BLANK_RESULT, 0)
    with sleeping() as process:
        name = new_uid().encode()
        execution = Execution(name, Log(log, result), Tree(name, None), (1, 0, 1000))
        execution.pid = execution.tree.leader = process.pid
        ours, theirs = socket.socketpair()
        due = time.monotonic() + 1
        with nothing_can_be_opened():
            assert execution.tick(due) == []
            assert execution.deadline() > due  # Else whoever asks would come back at once.
            with pytest.raises(OSError, match="open files"):
                execution.stop(formats.EXIT_CANCELLED, b"somebody", 1, due)
        execution.tick(due + 1)
        assert process.wait() == -signal.SIGTERM
        execution.waiting.append((Connection(ours), 7))
        execution.exited(signal.SIGTERM, (0, 0, 0), due + 1)
        for _ in range(3):
            due += 1
            with nothing_can_be_opened():
                execution.tick(due)
        told = execution.tick(due + 1) or execution.tick(due + 2)
        assert [number for _, number in told] == [7]
        assert execution.ended
        found = Result.decode((tmp_path / "result").read_bytes())
        assert found
        assert (found.kind, found.text) == (ExitKind.TIMED_OUT, "timeout")
        ours.close()
        theirs.close()


def test_what_is_held_still_goes_on_as_soon_as_that_can_be_seen_to(tmp_path: Path) -> None:
    freezing, told = Freezing(Cgroups([])), list[str]()
    with sleeping() as process:
        agents = {"a": process.pid}
        freezing.freeze("a", tmp_path, 0.2, told.append)
        while not told:
            freezing.tick(agents)
        assert told == [""]
        while left := freezing.patience():
            time.sleep(left)
        with nothing_can_be_opened():
            freezing.tick(agents)
        assert state(process.pid) == "T"
        assert freezing.patience()  # Not at once, nor never.
        while freezing.patience() is not None:
            time.sleep(freezing.patience() or 0)
            freezing.tick(agents)
        assert state(process.pid) != "T"


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_who_cannot_connect_for_want_of_descriptors_is_told_that_nobody_is_there(
    tmp_path: Path,
) -> None:
    with nothing_can_be_opened(), pytest.raises(PeerGone):
        async with Channel.open(tmp_path / "none", 1.0):
            pass
