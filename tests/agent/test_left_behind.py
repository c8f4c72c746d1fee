"""What goes on after a command, in both modes; and connections to ports, as a client has them."""

import asyncio
import signal
import socket

import pytest

from agent.client import AgentClient, AgentError, ErrorCode, InputState, Scope
from tests.agent.node import Box, Node, close, command, ended, python, until

LEAVE = "sleep 61 >/dev/null 2>&1 & setsid sleep 62 >/dev/null 2>&1 & "


async def started(box: Box, agent: AgentClient, key: str, script: str) -> None:
    """A command that has ended."""
    sinks = box.sinks(key)
    try:
        env = {"COVE_EXECUTION_ID": key}
        await agent.start(key, command("sh", "-c", script, env=env), sinks)
        await ended(sinks)
    finally:
        close(sinks)


async def alive(agent: AgentClient, key: str, count: int) -> list[bytes]:
    """When there are so many, and all have become what they are to be."""
    async with asyncio.timeout(30):
        while True:
            found = (await agent.processes(key)).get(key)
            commands = sorted(each.command for each in found.listed) if found else []
            settled = not any(each.startswith((b"sh\0", b"setsid\0")) for each in commands)
            if settled and (found.total if found else 0) == count:
                return commands
            await asyncio.sleep(0.005)


async def test_what_is_left_is_listed_and_signalled(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        await started(box, agent, "one", LEAVE)
        await started(box, agent, "two", "sleep 63 >/dev/null 2>&1 &")
        assert await alive(agent, "one", 2) == [b"sleep\x0061\x00", b"sleep\x0062\x00"]
        assert {key: each.total for key, each in (await agent.processes()).items()} == {
            "one": 2,
            "two": 1,
        }
        await agent.signal("one", signal.SIGTERM, Scope.GROUP)
        assert await alive(agent, "one", 1) == [b"sleep\x0062\x00"]
        with pytest.raises(AgentError) as caught:
            await agent.signal("one", signal.SIGTERM, Scope.GROUP)
        assert caught.value.code is ErrorCode.EXECUTION_NOT_FOUND
        await agent.signal("one", signal.SIGKILL, Scope.TREE)
        assert await alive(agent, "one", 0) == []
        with pytest.raises(AgentError) as caught:
            await agent.signal("one", signal.SIGKILL, Scope.TREE)
        assert caught.value.code is ErrorCode.EXECUTION_NOT_FOUND
        assert (await agent.processes("two"))["two"].total == 1
        assert await agent.processes("no such") == {}


@pytest.mark.long
async def test_who_left_something_is_remembered(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        await started(box, agent, "first", LEAVE)
        for number in range(280):
            await started(box, agent, f"e{number}", "true")
        assert len(await alive(agent, "first", 2)) == 2
        await agent.signal("first", signal.SIGKILL, Scope.TREE)
        listed = {each.execution_id for each in (await agent.listing()).executions}
        assert len(listed) < 270


@pytest.mark.long
async def test_who_waits_at_an_input_that_is_forgotten_is_told(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        sinks = box.sinks("cat")
        await agent.start("cat", command("cat", stdin=True), sinks)
        await agent.write_input("cat", 0, b"abc", close=True)
        await ended(sinks)
        close(sinks)
        for number in range(256):
            await started(box, agent, f"e{number}", "true")
        waiting = asyncio.create_task(agent.input("cat", wait=5))
        await asyncio.sleep(0)  # It is sent, before the next.
        await started(box, agent, "last", "true")
        with pytest.raises(AgentError) as caught:
            await agent.input("cat")
        assert caught.value.code is ErrorCode.EXECUTION_NOT_FOUND
        assert await waiting == InputState(3, True)


async def test_a_connection_is_given_out(node: Node) -> None:
    serve = """
import os, socket
s = socket.create_server(("127.0.0.1", 0))
with open("/workspace/new", "w") as f: f.write(str(s.getsockname()[1]))
os.rename("/workspace/new", "/workspace/port")
p, _ = s.accept(); p.sendall(b"from inside"); p.close()
"""
    async with node.sandbox() as box, box.agent() as agent:
        sinks = box.sinks("one")
        place = box.worktree / "port"
        try:
            await agent.start("one", command(*python(serve)), sinks)
            await until(place.exists)
            descriptor = await agent.connect_port(int(place.read_text()), six=False)
            with socket.socket(fileno=descriptor) as found:
                found.settimeout(30)
                assert found.recv(64) == b"from inside"
            for bad in (0, 65536, -1):
                with pytest.raises(AgentError) as caught:
                    await agent.connect_port(bad, six=False)
                assert caught.value.code is ErrorCode.BAD_REQUEST
        finally:
            close(sinks)
