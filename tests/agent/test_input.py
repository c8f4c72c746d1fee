"""Input of commands: pipes and terminals, exactly once, one writer at a time."""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent import frames
from agent.client import AgentClient, AgentError, ErrorCode, InputState, Sinks, Terminal
from agent.record import ExitKind, LogReader, Stream, input_of
from tests.agent.node import Box, Node, close, command, ended, python, until

FULL = 400 << 10
"""Bytes that no pipe takes."""


@asynccontextmanager
async def started(
    box: Box, *argv: str, name: str = "x", **options: Any
) -> AsyncIterator[tuple[AgentClient, Sinks]]:
    sinks = box.sinks(name)
    try:
        async with box.agent() as agent:
            await agent.start(name, command(*argv, **options), sinks)
            yield agent, sinks
    finally:
        close(sinks)


def seen(sinks: Sinks) -> bytes:
    return b"".join(each.payload for each in LogReader(sinks.log).read(1 << 40) if each.stream)


async def test_a_command_reads_what_is_written_and_its_end(node: Node) -> None:
    async with node.sandbox() as box, started(box, "cat", stdin=True) as (agent, sinks):
        assert await agent.write_input("x", 0, b"one\n") == InputState(4, False)
        await until(lambda: seen(sinks) == b"one\n")
        assert await agent.write_input("x", 4, b"two\n", close=True) == InputState(8, True)
        done = await ended(sinks)
        assert (done.stdout, done.result.number) == (b"one\ntwo\n", 0)
        assert input_of(os.pread(sinks.result, 4096, 0)) == InputState(8, True)


async def test_without_input_there_is_none(node: Node) -> None:
    async with node.sandbox() as box, started(box, "sleep", "9") as (agent, sinks):
        for call in (agent.write_input("x", 0, b"a"), agent.input("x")):
            with pytest.raises(AgentError) as caught:
                await call
            assert caught.value.code is ErrorCode.INPUT_NONE
        with pytest.raises(AgentError) as caught:
            await agent.resize("x", 2, 3)
        assert caught.value.code is ErrorCode.TERMINAL_NONE
        assert input_of(os.pread(sinks.result, 4096, 0)) is None


async def test_no_byte_is_taken_twice_and_none_is_left_out(node: Node) -> None:
    async with node.sandbox() as box, started(box, "cat", stdin=True) as (agent, sinks):
        await agent.write_input("x", 0, b"abc")
        assert (await agent.write_input("x", 0, b"abc")).taken == 3
        assert (await agent.write_input("x", 1, b"bcde")).taken == 5
        with pytest.raises(AgentError) as caught:
            await agent.write_input("x", 6, b"g")
        assert (caught.value.code, str(caught.value)) == (ErrorCode.INPUT_GAP, "5")
        await agent.write_input("x", 5, b"", close=True)
        # What came before the end is a repeat still; what is new is not taken.
        assert await agent.write_input("x", 0, b"abcde", close=True) == InputState(5, True)
        with pytest.raises(AgentError) as caught:
            await agent.write_input("x", 5, b"f")
        assert caught.value.code in (ErrorCode.INPUT_CLOSED, ErrorCode.EXECUTION_NOT_FOUND)
        assert (await ended(sinks)).stdout == b"abcde"


async def test_a_full_pipe_holds_the_writer_up_and_nobody_else(node: Node) -> None:
    script = "until [ -e go ]; do sleep 0.02; done; wc -c"
    async with (
        node.sandbox() as box,
        started(box, "sh", "-c", script, stdin=True) as (agent, sinks),
    ):
        at, data = 0, bytes(FULL)
        state = await agent.write_input("x", 0, data)
        assert 0 < state.taken < FULL
        writing = asyncio.create_task(agent.write_input("x", state.taken, data[state.taken :]))
        assert (await box.run("echo", "beside")).stdout == b"beside\n"
        assert not writing.done()
        (box.worktree / "go").touch()
        at = (await writing).taken
        while at < FULL:
            at = (await agent.write_input("x", at, data[at:], close=True)).taken
        assert (await ended(sinks)).stdout.strip() == b"%d" % FULL


async def test_an_exit_does_not_wait_for_input(node: Node) -> None:
    script = "until [ -e go ]; do sleep 0.02; done"
    async with (
        node.sandbox() as box,
        started(box, "sh", "-c", script, stdin=True) as (agent, sinks),
    ):
        at = (await agent.write_input("x", 0, bytes(FULL))).taken
        waiting = asyncio.create_task(agent.write_input("x", at, bytes(FULL)))
        for _ in range(2):  # It is sent after the first, and there before the second.
            await agent.input("x")
        (box.worktree / "go").touch()
        assert (await ended(sinks)).result.number == 0
        with contextlib.suppress(AgentError):
            assert (await waiting).taken == at
        with pytest.raises(AgentError) as caught:
            await agent.write_input("x", at, b"more")
        assert caught.value.code is ErrorCode.INPUT_CLOSED


async def test_who_closes_its_input_gets_no_more(node: Node) -> None:
    script = "exec <&-; touch closed; sleep 9"
    async with node.sandbox() as box, started(box, "sh", "-c", script, stdin=True) as (agent, _):
        await until((box.worktree / "closed").exists)
        with pytest.raises(AgentError) as caught:
            await agent.write_input("x", 0, b"a")
        assert caught.value.code is ErrorCode.INPUT_CLOSED
        assert await agent.input("x") == InputState(0, True)


async def test_one_writes_until_another_takes_over(node: Node) -> None:
    async with node.sandbox() as box, started(box, "cat", stdin=True) as (agent, sinks):
        await agent.write_input("x", 0, b"1", writer="a")
        for writer in ("b", ""):
            with pytest.raises(AgentError) as caught:
                await agent.write_input("x", 1, b"2", writer=writer)
            assert caught.value.code is ErrorCode.INPUT_HELD
        losing = asyncio.create_task(agent.input("x", writer="a", wait=5))
        await agent.input("x", writer="a")  # The one before is there by then.
        await agent.write_input("x", 1, b"2", writer="b", take_over=True)
        with pytest.raises(AgentError) as caught:
            await losing
        assert caught.value.code is ErrorCode.INPUT_HELD
        await agent.release_input("x", "a")  # Of no use any more.
        with pytest.raises(AgentError):
            await agent.write_input("x", 2, b"3", writer="a")
        await agent.release_input("x", "b")
        await agent.write_input("x", 2, b"3", close=True)
        assert (await ended(sinks)).stdout == b"123"


async def test_who_waits_is_told_of_the_end(node: Node) -> None:
    async with node.sandbox() as box, started(box, "cat", stdin=True) as (agent, sinks):
        waiting = asyncio.create_task(agent.input("x", writer="a", wait=5))
        await agent.write_input("x", 0, b"", close=True, writer="a")
        assert (await waiting).closed
        await ended(sinks)


TERMINAL = """
import os, signal, sys, termios
assert os.ttyname(0) == os.ttyname(1) == os.ttyname(2)
assert os.tcgetpgrp(0) == os.getpgrp() == os.getsid(0)
tell = lambda *_: os.write(1, b"%s\\n" % str(os.get_terminal_size()).encode())
signal.signal(signal.SIGWINCH, tell)  # It may come while something is printed.
tell()
while line := sys.stdin.readline():
    print("got", line.strip(), flush=True)
print("end")
"""


async def test_a_terminal_is_one(node: Node) -> None:
    argv = python(TERMINAL)
    async with (
        node.sandbox() as box,
        started(box, *argv, terminal=Terminal(24, 80)) as (agent, sinks),
    ):
        await until(lambda: b"columns=80, lines=24" in seen(sinks))
        await agent.resize("x", 33, 111)
        await until(lambda: b"columns=111, lines=33" in seen(sinks))
        await agent.write_input("x", 0, b"hi\r")
        await until(lambda: b"got hi" in seen(sinks))
        await agent.write_input("x", 3, b"\x04")
        done = await ended(sinks)
        assert done.result.number == 0
        records = LogReader(sinks.log).read(1 << 40)
        assert {each.stream for each in records} == {Stream.NONE, Stream.TERMINAL}
        assert re.sub(rb"\s+", b" ", seen(sinks)).endswith(b"hi got hi end ")
        assert input_of(os.pread(sinks.result, 4096, 0)) == InputState(4, False)


async def test_keys_are_signals(node: Node) -> None:
    size = Terminal(24, 80)
    async with (
        node.sandbox() as box,
        started(box, "sh", "-c", "echo go; exec sleep 60", terminal=size) as (agent, sinks),
    ):
        await until(lambda: seen(sinks) == b"go\r\n")
        await agent.write_input("x", 0, b"\x03")
        done = await ended(sinks)
        assert (done.result.kind, done.result.number) == (ExitKind.SIGNAL, 2)


async def test_much_on_a_terminal_is_whole(node: Node) -> None:
    argv = ("sh", "-c", "stty -opost; seq 200000")
    async with (
        node.sandbox() as box,
        started(box, *argv, terminal=Terminal(24, 80)) as (_, sinks),
    ):
        await ended(sinks)
        assert seen(sinks) == b"".join(b"%d\n" % number for number in range(1, 200001))
        assert len(LogReader(sinks.log).read(1 << 30)) < 2000


async def test_a_terminal_that_is_held_does_not_hold_up_the_exit(node: Node) -> None:
    argv = ("sh", "-c", "trap '' HUP; sleep 60 & echo out")
    async with (
        node.sandbox() as box,
        started(box, *argv, terminal=Terminal(24, 80)) as (_, sinks),
    ):
        done = await ended(sinks)
        assert (seen(sinks), done.result.number) == (b"out\r\n", 0)


async def test_malformed_requests_hurt_nobody(node: Node) -> None:
    async with node.sandbox() as box, started(box, "cat", stdin=True) as (agent, sinks):
        wrong = [
            (frames.WRITE, frames.pack(b"x")),
            (frames.WRITE, frames.pack(b"x", b"", 0, b"-", 0, b"")),
            (frames.INPUT, frames.pack(b"x", b"")),
            (frames.RESIZE, frames.pack(b"x", -1, 1 << 40)),
            (frames.RELEASE, frames.pack()),
            (frames.START_OPEN, frames.pack(b"y", b"/")),
        ]
        for kind, payload in wrong:
            with pytest.raises(AgentError):
                await agent._ask(kind, payload)  # noqa: SLF001
        await agent.write_input("x", 0, b"fine", close=True)
        assert (await ended(sinks)).stdout == b"fine"
