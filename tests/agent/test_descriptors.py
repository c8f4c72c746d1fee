"""Descriptors on their way through sockets are counted per uid: nobody may use up all of them."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.client import AgentClient
from tests.agent.node import Box, Node, close, command, output, python, until

FILL = """
import array, os, resource, socket, time
null = os.open("/dev/null", os.O_RDONLY)
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * 250))]
kept = []
try:
    while True:
        kept += socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        kept[-1].setblocking(False)
        try:
            while True:
                kept[-1].sendmsg([b"x"], rights)
        except BlockingIOError:
            pass
except OSError as error:
    print(os.strerror(error.errno), flush=True)
time.sleep(60)
"""


async def fill(box: Box, agent: AgentClient) -> None:
    sinks = box.sinks("fill")
    try:
        await agent.start("fill", command(*python(FILL)), sinks)
        said = await until(lambda: output(sinks.log)[0])
        assert said in (b"Too many references: cannot splice\n", b"Too many open files\n")
    finally:
        close(sinks)


@contextmanager
def all_that_may_be_open() -> Iterator[None]:
    """The limit that the executor gives itself: what it sends counts against the same quota."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


async def test_a_command_that_fills_the_quota_keeps_no_agent_from_answering(node: Node) -> None:
    with all_that_may_be_open():
        await _filled_by_one(node)


async def _filled_by_one(node: Node) -> None:
    async with node.sandbox() as hog, node.sandbox() as other:
        (other.worktree / "file").write_text("content")
        async with hog.agent() as its, other.agent() as agent:
            await fill(hog, its)
            for each in (its, agent):
                os.close(await each.open(b"/workspace", os.O_RDONLY | os.O_DIRECTORY))
            assert (await other.run("echo", "fine")).stdout == b"fine\n"


async def test_a_command_may_open_less_than_its_agent(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        own = (await box.run("sh", "-c", "ulimit -Hn; ulimit -Sn")).stdout.split()
        lines = Path(f"/proc/{agent.pid}/limits").read_text().splitlines()
        its = next(line.split()[3:5] for line in lines if line.startswith("Max open files"))
    assert own[0] == own[1]
    assert all(4 * int(own[0]) <= int(most) for most in its)
