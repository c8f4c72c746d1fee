"""Starts that were prepared ahead: they save time, and change nothing else."""

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent.client import AgentClient, AgentError, ErrorCode, Sinks
from agent.protocol import Limits
from agent.record import ExitKind
from tests.agent.node import Box, Node, close, command, ended, until
from tests.support.suite import children


@asynccontextmanager
async def prepared(agent: AgentClient, box: Box, token: str = "t") -> AsyncIterator[Sinks]:
    sinks = box.sinks(token)
    try:
        await agent.prepare(token, sinks)
        yield sinks
    finally:
        close(sinks)


async def refused(call: object) -> ErrorCode:
    with pytest.raises(AgentError) as caught:
        await call  # type: ignore[misc]
    return caught.value.code


async def test_a_prepared_start_is_as_any_other(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent, prepared(agent, box) as sinks:
        script = "echo out; echo err >&2; cat /proc/self/oom_score_adj; ls /proc/self/fd; exit 3"
        await agent.run("t", "x", command("sh", "-c", script))
        done = await ended(sinks)
        assert (done.result.kind, done.result.number) == (ExitKind.CODE, 3)
        assert done.stdout == b"out\n500\n0\n1\n2\n3\n"  # The third is that of `ls`.
        assert done.stderr == b"err\n"


async def test_merged_output_keeps_its_order(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent, prepared(agent, box) as sinks:
        run = command("sh", "-c", "echo 1; echo 2 >&2; echo 3", merge_stderr=True)
        await agent.run("t", "x", run)
        assert (await ended(sinks)).stdout == b"1\n2\n3\n"


async def test_what_is_prepared_runs_one_command(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent, prepared(agent, box) as sinks:
        run = command("sh", "-c", "echo x >> starts")
        first = await agent.run("t", "x", run)
        assert not first.existing
        assert (await agent.run("t", "x", run)).existing
        assert (await agent.start("x", run, sinks)).existing
        assert await refused(agent.run("t", "y", run)) is ErrorCode.NOT_PREPARED
        assert await refused(agent.start("y", run, sinks)) is ErrorCode.ALREADY_STARTED
        await ended(sinks)
        assert (box.worktree / "starts").read_text() == "x\n"


async def test_a_log_with_something_in_it_starts_nothing(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent, prepared(agent, box) as sinks:
        os.write(sinks.log, b"x")
        assert await refused(agent.run("t", "x", command("true"))) is ErrorCode.ALREADY_STARTED
        async with asyncio.timeout(30):
            while (await agent.listing()).processes:
                pass


@pytest.mark.parametrize(
    ("argv", "cwd", "code"),
    [
        (["no-such-program"], "/workspace", ErrorCode.PROGRAM_NOT_FOUND),
        (["/etc/passwd"], "/workspace", ErrorCode.PROGRAM_NOT_EXECUTABLE),
        (["true"], "/no/such", ErrorCode.CWD_NOT_FOUND),
        ([], "/workspace", ErrorCode.BAD_REQUEST),
    ],
)
async def test_what_cannot_start_leaves_no_trace(
    node: Node, argv: list[str], cwd: str, code: ErrorCode
) -> None:
    async with node.sandbox() as box, box.agent() as agent, prepared(agent, box) as sinks:
        assert await refused(agent.run("t", "x", command(*argv, cwd=cwd))) is code
        assert os.fstat(sinks.log).st_size == 0
        await agent.start("x", command("true"), sinks)
        assert (await ended(sinks)).result.number == 0


async def test_what_waits_is_no_process_of_anybody(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent, prepared(agent, box):
        listing = await agent.listing()
        assert (listing.processes, listing.background, listing.executions) == (0, 0, ())


async def test_what_is_not_used_is_forgotten(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent, prepared(agent, box):
        waiting = set(children(agent.pid))
        assert waiting
        await agent.forget("t")
        await until(lambda: not waiting.intersection(children(agent.pid)))
        await agent.forget("t")
        assert await refused(agent.run("t", "x", command("true"))) is ErrorCode.NOT_PREPARED
        async with prepared(agent, box, "t2"):
            await agent.run("t2", "y", command("true"))


async def test_what_waits_ends_with_its_connection_and_lets_the_agent_go_idle(node: Node) -> None:
    async with node.sandbox(idle_timeout_seconds=0.2) as box:
        async with box.agent() as agent, prepared(agent, box):
            pass
        async with box.agent() as agent:
            assert await refused(agent.run("t", "x", command("true"))) is ErrorCode.NOT_PREPARED
        await until(lambda: not box.socket.exists())


async def test_a_killed_one_is_replaced_by_an_ordinary_start(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent, prepared(agent, box) as sinks:
        await box.run("sh", "-c", "kill -KILL -1")
        await until(lambda: not children(agent.pid))  # The agent has seen its end.
        code = await refused(agent.run("t", "x", command("echo", "x")))
        assert code is ErrorCode.NOT_PREPARED
        assert os.fstat(sinks.log).st_size == 0
        await agent.start("x", command("echo", "x"), sinks)
        assert (await ended(sinks)).stdout == b"x\n"


async def test_a_stopped_one_goes_on(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent, prepared(agent, box) as sinks:
        await box.run("sh", "-c", "kill -STOP -1")
        await agent.run("t", "x", command("echo", "x"))
        assert (await ended(sinks)).stdout == b"x\n"


async def test_long_orders_arrive_whole(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent, prepared(agent, box) as sinks:
        words = ["x" * 100_000] * 10
        await agent.run("t", "x", command("sh", "-c", 'echo "$#$1"', "sh", *words))
        assert (await ended(sinks)).stdout == b"10" + b"x" * 100_000 + b"\n"


async def test_few_processes_are_all_for_commands(node: Node) -> None:
    async with node.sandbox(limits=Limits(pids=4)) as box, box.agent() as agent:
        sinks = box.sinks("t")
        assert await refused(agent.prepare("t", sinks)) is ErrorCode.LIMIT_REACHED
        close(sinks)


async def test_one_that_cannot_be_set_up_is_refused(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        sinks = box.sinks("t")
        null = os.open("/dev/full", os.O_WRONLY)
        broken = Sinks(log=sinks.log, result=sinks.result, cgroup_procs=(null,))
        assert await refused(agent.prepare("t", broken)) is ErrorCode.OS_ERROR
        assert await refused(agent.run("t", "x", command("true"))) is ErrorCode.NOT_PREPARED
        await agent.prepare("u", sinks)
        await agent.run("u", "x", command("true"))
        assert (await ended(sinks)).result.number == 0
        os.close(null)
        close(sinks)


async def test_one_that_cannot_be_set_up_says_so_whatever_was_left_to_tell_it(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        full = os.open("/dev/full", os.O_WRONLY)
        sinks = replace(box.sinks("t"), cgroup_procs=(full,))
        for words in ([], ["x" * 100_000] * 2):  # The pipe to it takes less.
            with pytest.raises(AgentError) as caught:
                await agent.start("x", command("true", *words), sinks)
            assert (caught.value.code, caught.value.errno) == (ErrorCode.OS_ERROR, errno.ENOSPC)
            assert os.fstat(sinks.log).st_size == 0
        os.close(full)
        close(sinks)


async def test_one_that_fails_at_once_is_refused_each_time(node: Node) -> None:
    """Also where it has ended before the agent looks at what it said: on one processor it may."""
    async with node.sandbox() as box, box.agent() as agent:
        os.sched_setaffinity(agent.pid, {min(os.sched_getaffinity(0))})
        sinks = box.sinks("t")
        full = os.open("/dev/full", os.O_WRONLY)
        broken = Sinks(log=sinks.log, result=sinks.result, cgroup_procs=(full,))
        for _ in range(300):
            assert await refused(agent.prepare("t", broken)) is ErrorCode.OS_ERROR
        os.close(full)
        close(sinks)


async def test_one_that_joins_for_long_holds_nothing_of_others(node: Node) -> None:
    """A command reads the end of its input meanwhile; the room of a log that is removed is free."""
    async with node.sandbox() as box, box.agent() as agent:
        sinks, more = box.sinks("x"), box.sinks("t")
        await agent.start("x", command("cat", stdin=True), sinks)
        read, joined = os.pipe()
        os.set_blocking(joined, False)
        os.write(joined, b"x" * (1 << 20))  # As much as it takes.
        os.set_blocking(joined, True)
        slow = Sinks(log=more.log, result=more.result, cgroup_procs=(joined,))
        preparing = asyncio.create_task(refused(agent.prepare("t", slow, timeout=60)))
        (joining,) = await until(lambda: children(agent.pid)[1:])
        await agent.write_input("x", 0, b"", close=True)
        assert (await ended(sinks)).result.number == 0
        log = Path(f"{node.folder}/{box.uid}.x.log")
        await until(lambda: log not in {each.readlink() for each in fds(joining)})
        assert not preparing.done()
        os.close(read)
        assert await preparing is ErrorCode.OS_ERROR
        os.close(joined)
        close(sinks)
        close(more)


def fds(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/fd").iterdir())


async def test_an_agent_that_dies_takes_what_waits_along(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent, prepared(agent, box) as sinks:
        os.kill(agent.pid, signal.SIGKILL)
        await until(agent.gone.is_set)
        assert os.fstat(sinks.log).st_size == 0
