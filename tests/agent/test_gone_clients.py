"""Clients that leave before they are answered, and an agent that has no descriptor to spare."""

import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from agent import PROTOCOL_VERSION, frames
from agent.client import AgentClient, AgentError, ErrorCode, Sinks
from agent.inside.commands import Commands
from agent.inside.connection import Connection
from agent.inside.execution import Execution
from agent.inside.limits import Processes
from agent.inside.log import Log
from agent.inside.requests import Requests
from agent.inside.tree import Tree
from tests.agent.node import Box, Node, close, command, ended, until

OPENS = 20
REMEMBERED = 256
"""Executions that have ended."""


@asynccontextmanager
async def sleeping(node: Node) -> AsyncIterator[tuple[Box, AgentClient, Sinks]]:
    """A sandbox in which a command runs, and a client that stays."""
    async with node.sandbox() as box, box.agent() as agent:
        sinks = box.sinks("sleep")
        try:
            await agent.start("sleep", command("sleep", "1000"), sinks)
            yield box, agent, sinks
        finally:
            close(sinks)


def ask_and_go(box: Box, agent: AgentClient, *asked: tuple[int, bytes]) -> None:
    """Ask, and be gone before the agent can answer: it stands still until then."""
    os.kill(agent.pid, signal.SIGSTOP)
    try:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(box.socket))
            for number, (kind, payload) in enumerate(asked):
                peer.sendall(frames.frame(PROTOCOL_VERSION, kind, number, payload))
    finally:
        os.kill(agent.pid, signal.SIGCONT)


def descriptors(pid: int) -> int:
    """How many a process has. Only root sees those of an agent, which is not dumpable."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def runs(box: Box) -> bool:
    """Whether the command does, as a client of its own is told."""
    async with box.agent() as agent:
        found = (await agent.listing()).executions
    return [(each.execution_id, each.ended) for each in found] == [("sleep", False)]


@pytest.mark.parametrize("wanted", [b"", frames.pack(0)])
async def test_whoever_has_it_leave_and_goes_ends_nothing(node: Node, wanted: bytes) -> None:
    async with sleeping(node) as (box, agent, sinks):
        ask_and_go(box, agent, (frames.LEAVE, wanted))
        assert await runs(box)
        assert not await agent.leave()
        await agent.signal("sleep", signal.SIGTERM)
        assert (await ended(sinks)).result.number == signal.SIGTERM


async def test_a_malformed_wish_that_it_leaves_ends_nothing(node: Node) -> None:
    async with sleeping(node) as (box, agent, _):
        with pytest.raises(AgentError) as caught:
            await agent._ask(frames.LEAVE, frames.pack(b"soon"))  # noqa: SLF001
        assert caught.value.code is ErrorCode.BAD_REQUEST
        assert await runs(box)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to look into an agent")
async def test_what_was_opened_for_who_has_gone_is_closed(node: Node) -> None:
    async with sleeping(node) as (box, agent, _):
        request = frames.pack(b"/workspace", os.O_RDONLY | os.O_DIRECTORY, 0, 0)
        before = descriptors(agent.pid)
        ask_and_go(box, agent, *[(frames.OPEN, request)] * OPENS)
        assert await runs(box)
        await until(lambda: descriptors(agent.pid) <= before)


@contextmanager
def nothing_can_be_opened() -> Iterator[None]:
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(free := os.open("/dev/null", os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


def remember(commands: Commands, many: int) -> None:
    """Executions that have ended."""
    for number in range(many):
        name = b"%d" % number
        commands.executions[name] = Execution(name, Log(-1, -1), Tree(name, None), (0, 0, 0))
        commands.executions[name].ended = True


def test_who_cannot_look_does_not_leave() -> None:
    requests = Requests(Processes(0, counted=False))
    remember(requests.commands, 1)  # A new agent waits for its first command.
    ours, theirs = socket.socketpair()
    with ours, theirs:
        requests.answer(Connection(ours), frames.LEAVE, 7, b"", [])
        with nothing_can_be_opened():
            assert not requests.leave(1e6)
        reply = frames.frame(PROTOCOL_VERSION, frames.OK, 7, frames.pack(0))
        assert theirs.recv(100) == reply


def test_what_cannot_be_looked_at_is_not_forgotten() -> None:
    commands = Commands(Processes(0, counted=False))
    remember(commands, REMEMBERED + 1)
    with nothing_can_be_opened():
        commands._forget()  # noqa: SLF001
    assert len(commands.executions) == REMEMBERED + 1
    commands._forget()  # noqa: SLF001
    assert len(commands.executions) == REMEMBERED
