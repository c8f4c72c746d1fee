"""Commands in a real sandbox: how they start, what is recorded, how they end."""

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from agent.client import AgentError, ErrorCode, PeerGone, Scope, Started
from agent.protocol import Limits
from agent.record import ExitKind, Kind, LogReader, Result
from tests.agent.node import Node, close, command, ended, output, python, timeout, until


async def test_output_and_code_are_recorded(node: Node) -> None:
    async with node.sandbox() as box:
        done = await box.run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.result.kind, done.result.number) == (ExitKind.CODE, 3)
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
    assert done.result.output_bytes == 8
    assert done.result.end_ns > done.result.start_ns
    assert done.result.peak_memory_kib > 0


async def test_merged_output_keeps_its_order(node: Node) -> None:
    async with node.sandbox() as box:
        script = "for i in 1 2 3; do echo o$i; echo e$i >&2; done"
        done = await box.run("sh", "-c", script, merge_stderr=True)
    assert done.stdout == b"o1\ne1\no2\ne2\no3\ne3\n"


async def test_large_output_is_whole(node: Node) -> None:
    async with node.sandbox() as box:
        done = await box.run("sh", "-c", "seq 1 1000000")
    assert done.stdout == b"".join(b"%d\n" % number for number in range(1, 1_000_001))


async def test_a_million_small_writes_become_few_records(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        sinks = box.sinks("x")
        script = "import os\nfor _ in range(1000000): os.write(1, b'x')"
        await agent.start("x", command(*python(script)), sinks)
        assert len((await ended(sinks)).stdout) == 1_000_000
        assert len(LogReader(sinks.log).read(1 << 30)) < 2000
        close(sinks)


async def test_what_comes_after_silence_is_recorded_at_once(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        sinks = box.sinks("x")
        say = "os.write(1, b'%d' % time.time_ns()); time.sleep(0.02)"
        script = f"import os, time\nfor _ in range(20): {say}"
        await agent.start("x", command(*python(script)), sinks)
        await ended(sinks)
        said = [each for each in LogReader(sinks.log).read(1 << 30) if each.kind is Kind.CHUNK]
        alone = [each for each in said if each.size == len(b"%d" % time.time_ns())]
        # What is held is held for 5 ms; to have one that nobody else held up is enough.
        assert min(each.time_ns - int(each.payload) for each in alone) < 3e6
        close(sinks)


async def test_a_signal_is_told_as_one(node: Node) -> None:
    async with node.sandbox() as box:
        done = await box.run("sh", "-c", "kill -SEGV $$")
    assert (done.result.kind, done.result.number) == (ExitKind.SIGNAL, signal.SIGSEGV)


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
    async with node.sandbox() as box, box.agent() as agent:
        sinks = box.sinks("x")
        with pytest.raises(AgentError) as caught:
            await agent.start("x", command(*argv, cwd=cwd), sinks)
        assert caught.value.code is code
        assert os.fstat(sinks.log).st_size == 0
        await agent.start("x", command("true"), sinks)
        assert (await ended(sinks)).result.number == 0
        close(sinks)


async def test_starting_twice_is_one_start(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        sinks = box.sinks("x")
        run = command("sh", "-c", "echo x >> starts; sleep 0.2")
        first = await agent.start("x", run, sinks)
        async with box.agent() as other:
            second = await other.start("x", run, sinks)
        assert (first.existing, second.existing, second.pid) == (False, True, first.pid)
        await ended(sinks)
        assert (await agent.start("x", run, sinks)).existing
        assert (box.worktree / "starts").read_text() == "x\n"
        close(sinks)


async def test_a_log_that_is_not_empty_is_never_started_again(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        sinks = box.sinks("x")
        os.write(sinks.log, b"x")
        with pytest.raises(AgentError) as caught:
            await agent.start("x", command("true"), sinks)
        assert caught.value.code is ErrorCode.ALREADY_STARTED
        close(sinks)


async def test_a_timeout_ends_the_whole_tree_and_says_so(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        sinks = box.sinks("x")
        stubborn = "touch stubborn; while :; do sleep 1; done"
        script = f"trap '' TERM; setsid sh -c '{stubborn}' & wait"
        run = command("sh", "-c", script, timeout=timeout(0.5), grace=timeout(0.3))
        began = time.monotonic()
        await agent.start("x", run, sinks)
        done = await ended(sinks)
        assert (done.result.kind, done.result.text) == (ExitKind.TIMED_OUT, "timeout")
        # One that had yet to become stubborn ends at the first word.
        assert time.monotonic() - began > 0.7 or not (box.worktree / "stubborn").exists()
        assert (await agent.listing()).processes == 0
        close(sinks)


async def test_silence_can_be_limited_too(node: Node) -> None:
    async with node.sandbox() as box:
        done = await box.run("sh", "-c", "echo a; sleep 60", idle_output_timeout=timeout(1))
    assert (done.result.kind, done.result.text) == (ExitKind.TIMED_OUT, "idle_output")
    assert done.stdout == b"a\n"


async def test_a_cancel_names_who_did_it(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        sinks = box.sinks("x")
        await agent.start("x", command("sleep", "60"), sinks)
        began = time.monotonic()
        await agent.cancel("x", "ada", timeout(30))
        assert time.monotonic() - began < 30
        result = Result.decode(os.pread(sinks.result, 4096, 0))
        assert result is not None
        assert (result.kind, result.text, result.number) == (ExitKind.CANCELLED, "ada", 15)
        close(sinks)


async def test_killing_the_tree_finds_who_ran_away(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        sinks = box.sinks("x")
        script = "(setsid setsid sleep 300 &); (setsid setsid sleep 300 &) ; sleep 300"
        await agent.start("x", command("sh", "-c", script, env={"COVE_EXECUTION_ID": "x"}), sinks)
        while (await agent.listing()).processes < 4:
            pass
        await agent.signal("x", signal.SIGKILL, Scope.TREE)
        assert (await agent.listing()).processes == 0
        done = await ended(sinks)
        assert (done.result.kind, done.result.number) == (ExitKind.SIGNAL, signal.SIGKILL)
        close(sinks)


async def test_a_background_child_does_not_hold_the_exit(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        sinks = box.sinks("x")
        began = time.monotonic()
        await agent.start("x", command("sh", "-c", "sleep 30 & echo hi"), sinks)
        assert (await ended(sinks)).stdout == b"hi\n"
        assert time.monotonic() - began < 30
        listing = await agent.listing()
        assert (listing.processes, listing.background) == (1, 1)
        with pytest.raises(AgentError):
            await agent.signal("x", signal.SIGTERM)
        close(sinks)


async def test_the_log_goes_on_when_the_client_is_gone(node: Node) -> None:
    async with node.sandbox() as box:
        sinks = box.sinks("x")
        async with box.agent() as agent:
            await agent.start("x", command("sh", "-c", "seq 1 200000; sleep 0.3; echo end"), sinks)
        done = await ended(sinks)
        assert done.stdout == b"".join(b"%d\n" % n for n in range(1, 200_001)) + b"end\n"
        close(sinks)


async def test_a_full_disk_loses_output_but_not_the_exit(node: Node) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to make a small disk")
    async with node.sandbox() as box, box.agent() as agent:
        small = Path(node.folder / "small")
        small.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "t", small], check=True)
        sinks = box.sinks("x", small)
        try:
            script = "head -c 1000000 /dev/zero; echo done >&2; exit 7"
            await agent.start("x", command("sh", "-c", script), sinks)
            done = await ended(sinks)
            assert done.result.number == 7
            assert done.result.output_bytes == 1_000_005
            assert done.result.dropped_bytes > 700_000
            recorded = len(done.stdout) + len(done.stderr) + done.gaps
            reader = LogReader(sinks.log)
            reader.read(1 << 30)
            assert reader.offset == recorded
            assert len(done.stdout) + len(done.stderr) + done.result.dropped_bytes == 1_000_005
        finally:
            close(sinks)
            await until(lambda: subprocess.run(["umount", small], check=False).returncode == 0)


@pytest.mark.parametrize("size", [1, 300_000, 4_000_000])
async def test_a_killed_agent_leaves_a_prefix_of_the_output(node: Node, size: int) -> None:
    async with node.sandbox() as box:
        sinks = box.sinks("x")
        async with box.agent() as agent:
            await agent.start("x", command("seq", "1", "100000000"), sinks)
            await until(lambda: os.fstat(sinks.log).st_size > size)
            os.kill(agent.pid, signal.SIGKILL)
            await until(agent.gone.is_set)
        reader = LogReader(sinks.log)
        chunks = [each.payload for each in reader.read(1 << 40) if each.kind is Kind.CHUNK]
        torn = reader.torn()
        data = b"".join([*chunks, torn.payload if torn else b""])
        lines = data.split(b"\n")[:-1]
        assert lines == [b"%d" % number for number in range(1, len(lines) + 1)]
        assert Result.decode(os.pread(sinks.result, 4096, 0)) is None
        close(sinks)


async def test_no_more_processes_is_an_answer_of_its_own(node: Node) -> None:
    if node.mode == "user":
        pytest.skip("an ordinary user's limit is that of the commands, not of starting one")
    async with node.sandbox(limits=Limits(pids=1)) as box, box.agent() as agent:
        first, second = box.sinks("a"), box.sinks("b")
        await agent.start("a", command("sleep", "60"), first)
        with pytest.raises(AgentError) as caught:
            await agent.start("b", command("sleep", "60"), second)
        assert caught.value.code is ErrorCode.LIMIT_REACHED
        close(first)
        close(second)


async def test_an_idle_agent_ends_by_itself(node: Node) -> None:
    async with node.sandbox(idle_timeout_seconds=0.2) as box:
        assert (await box.run("true")).result.number == 0
        async with box.agent() as agent:
            sinks = box.sinks("x")
            await agent.start("x", command("sleep", "1"), sinks)
        assert (await ended(sinks)).result.number == 0
        close(sinks)
        await until(lambda: not box.socket.exists())
        with pytest.raises(PeerGone):
            async with box.agent():
                pass


STORM = """
import os, signal
for _ in range(2):
    if os.fork() == 0:
        break
os.write(1, b"begun")
while True:
    try:
        os.kill(-1, signal.SIGSTOP)
    except OSError:
        pass
"""


async def test_whoever_stops_all_others_holds_up_no_agent(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        storm, other = box.sinks("storm"), box.sinks("other")
        mark = {"COVE_EXECUTION_ID": "storm"}
        await agent.start("storm", command(*python(STORM), env=mark), storm)
        await until(lambda: output(storm.log)[0])
        starting = asyncio.create_task(
            agent.start("other", command("true", timeout=timeout(1)), other)
        )
        for _ in range(3):
            async with asyncio.timeout(30):
                os.close(await agent.open(b"/workspace", os.O_RDONLY | os.O_DIRECTORY))
                await agent.listing()
        async with asyncio.timeout(30):
            (told,) = await asyncio.gather(starting, return_exceptions=True)
        ran = isinstance(told, Started)
        # Whoever never comes to run is told of, in time.
        assert ran or (isinstance(told, AgentError) and told.code is ErrorCode.NOT_PREPARED)
        async with asyncio.timeout(30):
            await agent.signal("storm", signal.SIGKILL, Scope.TREE)
        await ended(storm)
        if ran:
            await ended(other)
        assert bool(os.fstat(other.log).st_size) is ran
        assert (await box.run("echo", "back")).stdout == b"back\n"


async def test_a_storm_ends_with_its_timeout(node: Node) -> None:
    async with node.sandbox() as box:
        env = {"COVE_EXECUTION_ID": "storm"}
        done = await box.run(
            *python(STORM), env=env, execution_id="storm", timeout=timeout(1), grace=timeout(0.1)
        )
        assert done.result.kind is ExitKind.TIMED_OUT
        assert (await box.run("echo", "back")).stdout == b"back\n"
