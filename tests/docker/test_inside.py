"""What a program in a container cannot do, and what becomes of one that tries."""

import fcntl
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agent import SANDBOX_UID
from agent.client import AgentClient, PeerGone
from cove.provider.v1 import provider_pb2 as pb
from tests.docker.stage import Stage, new_uid
from tests.executor.node import Sandbox

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(stage: Stage) -> AsyncIterator[Sandbox]:
    """One for those that leave it as it is."""
    yield (made := await stage.active())
    await stage.release(made)


async def test_nothing_of_the_engine_or_the_node_is_inside(stage: Stage) -> None:
    box = await stage.active()
    mounts = await stage.said(box, "cat /proc/self/mountinfo")
    assert str(stage.docker.socket) not in mounts
    assert "docker.sock" not in mounts
    inside = [line.split()[4] for line in mounts.splitlines()]
    ours = {each for each in inside if each.split("/")[1] not in ("proc", "sys", "dev", "etc")}
    assert ours == {
        "/",
        "/.cove/door",
        "/.cove/lib",
        "/.cove/objects",
        "/home/cove",
        "/tmp",
        "/var/tmp",
        "/workspace",
    }
    writable = [line.split()[4] for line in mounts.splitlines() if line.split()[5].startswith("rw")]
    writable = [each for each in writable if each.split("/")[1] not in ("proc", "sys", "dev")]
    assert sorted(writable) == ["/home/cove", "/tmp", "/var/tmp", "/workspace"]
    assert "/" not in await stage.said(box, "cat /proc/net/unix")
    await stage.release(box)


@pytest.mark.parametrize(
    "script",
    [
        "true < /.cove/door",
        "nc local:/.cove/door </dev/null",
        "cat /proc/1/environ",
        "cat /proc/1/mem",
        "ls /proc/1/fd",
        "echo 1000 > /proc/1/oom_score_adj",
        "touch /etc/x",
        "touch /.cove/lib/x",
        "rm /.cove/door",
        "busybox mount -t tmpfs x /tmp",
        "busybox unshare -r true",
        "busybox chroot / true",
        "busybox mknod /tmp/x b 1 1",
        "kill -9 1 && sleep 0.2 && false",
    ],
)
async def test_it_cannot_reach_out_of_its_place(stage: Stage, box: Sandbox, script: str) -> None:
    done = await stage.caller.execute(box, f"({script}) >/dev/null 2>&1")
    assert done.execution.exit.code != 0
    assert await stage.said(box, "echo alive") == "alive\n"


async def test_its_agent_is_reached_from_outside_only(stage: Stage, box: Sandbox) -> None:
    """The agent's own socket is nowhere inside; its name outside is provider's."""
    assert not (stage.runtime / "d" / box.uid).exists()
    path = stage.runtime / "a" / box.uid
    assert oct(path.stat().st_mode)[-3:] == "600"
    async with AgentClient.connect(path, SANDBOX_UID) as agent:
        assert agent.uid == SANDBOX_UID
        assert f"NSpid:\t{agent.pid}\t1" in Path(f"/proc/{agent.pid}/status").read_text()
    with pytest.raises(PeerGone):
        async with AgentClient.connect(path, 0):
            pass


async def test_memory_that_is_not_there_ends_the_command_and_not_the_agent(stage: Stage) -> None:
    box = await stage.active(limits=pb.Limits(memory_bytes=64 << 20))
    done = await stage.caller.execute(box, "x=a; while :; do x=$x$x; done")
    assert done.execution.exit.WhichOneof("reason") == "limit"
    assert await stage.said(box, "echo alive") == "alive\n"
    await stage.release(box)


async def test_the_lock_of_a_worktree_is_held_while_the_container_lives(stage: Stage) -> None:
    uid = new_uid()
    box = await stage.active(stage.layers(uid), uid=uid)
    lock = os.open(stage.state / "git/worktrees" / uid / "lock", os.O_RDWR)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        await stage.release(box)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(lock)


async def test_a_killed_container_loses_its_commands_and_starts_again(stage: Stage) -> None:
    box = await stage.active()
    await stage.caller.start(box, "runs", "echo begun; sleep 1000")
    os.kill(stage.docker.inspect(box.uid)["State"]["Pid"], signal.SIGKILL)
    assert (await stage.caller.wait(box, "runs")).exit.WhichOneof("reason") == "lost"
    assert await stage.caller.output(box, "runs") == b"begun\n"
    assert await stage.activate(box)
    assert await stage.said(box, "echo again") == "again\n"
    await stage.release(box)
