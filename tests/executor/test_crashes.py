"""What is killed, raced or broken off: nothing told is lost, and nothing runs twice."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack, ExitStack

import grpc
import pytest

from agent.client import AgentClient, Command, Listing, Sinks
from agent.record import ExitKind, Result
from cove.errors.v1.errors_pb2 import ErrorReason as Why
from cove.executor.v1 import executor_pb2 as pb
from services.executor.preparing import opened
from services.executor.record import Record, Spec
from services.executor.store import Store
from tests.executor.node import (
    OWNER,
    Caller,
    Node,
    Sandbox,
    calling,
    recorded,
    refused,
    start,
    until,
)

Code = grpc.StatusCode
HOUR_NS = 3600 * 10**9


def left_over(node: Node, box: Sandbox, script: str) -> Record:
    """What an executor leaves that is killed after it recorded a start and before it asked."""
    store = Store(node.state / "executor" / "executions")
    spec = Spec(script=script, interpreter="sh", timeout_ns=HOUR_NS)
    with recorded(store, box.uid, "one", spec, 10**18) as record:
        return record


async def test_kill_of_the_executor_loses_no_byte(node: Node, box: Sandbox) -> None:
    count = "while [ $i -lt $1 ]; do echo line $i; i=$((i+1)); done"
    script = f"i=0; set 3000; {count}; until [ -e go ]; do sleep 0.02; done; set 4000; {count}"
    with node.process() as first:
        async with calling(first.address) as caller:
            await caller.start(box, "one", script)
            async for event in caller.read(box, "one"):
                if event.WhichOneof("event") == "chunk":
                    break
        first.kill()
    with node.process() as second:
        async with calling(second.address) as caller:
            assert (await caller.get(box, "one")).state == pb.Execution.STATE_RUNNING
            (box.tree / "go").touch()
            output = await caller.output(box, "one")
            assert output.decode() == "".join(f"line {i}\n" for i in range(4000))
            assert (await caller.get(box, "one")).exit.WhichOneof("reason") == "code"


async def test_an_end_while_no_executor_runs_is_told_by_the_next(node: Node, box: Sandbox) -> None:
    async with node.executor() as caller:
        await caller.start(box, "one", "echo x; sleep 0.2; kill -9 $$")
        await caller.start(box, "two", "sleep 0.1; touch over; sleep 0.2")

    async def over() -> bool:
        return (box.tree / "over").exists()

    await until(over)
    async with node.executor() as caller:
        assert (await caller.wait(box, "one")).exit.signal.number == 9
        assert (await caller.wait(box, "two")).exit.code == 0


async def test_an_executor_that_stops_cancels_nothing(node: Node, box: Sandbox) -> None:
    request = pb.StreamExecutionRequest(
        handle=box.handle,
        execution_id="one",
        spec=pb.ExecutionSpec(script="echo on; sleep 60"),
        cancel_on_disconnect=True,
    )
    async with AsyncExitStack() as stack:
        caller = await stack.enter_async_context(node.executor())
        call = caller.executions.StreamExecution(request)
        async for event in call:
            if event.WhichOneof("event") == "chunk":
                break
    async with node.executor() as after:
        assert (await after.get(box, "one")).state == pb.Execution.STATE_RUNNING


async def test_two_executors_start_one_command(node: Node, box: Sandbox) -> None:
    with node.process() as first, node.process() as second:
        async with calling(first.address) as one, calling(second.address) as two:
            for number in range(10):
                script = f"echo x >> count{number}; echo started"
                starts = [
                    caller.executions.StartExecution(start(box, f"e{number}", script))
                    for caller in (one, two, one, two)
                ]
                answers = await asyncio.gather(*starts)
                assert len({each.execution.create_time.ToNanoseconds() for each in answers}) == 1
                ended = await asyncio.gather(
                    one.wait(box, f"e{number}"), two.wait(box, f"e{number}")
                )
                assert ended[0] == ended[1]
                assert (box.tree / f"count{number}").read_text() == "x\n"


@pytest.mark.parametrize("rounds", range(4))
async def test_a_start_killed_anywhere_runs_once_when_retried(
    node: Node, box: Sandbox, rounds: int
) -> None:
    script = "echo x >> count; cat count"
    with node.process() as first:
        async with calling(first.address) as caller:
            await caller.execute(box, "true")
            calls = [
                caller.executions.StartExecution(start(box, f"e{number}", f"echo x >> c{number}"))
                for number in range(8)
            ]
            done = asyncio.gather(*calls, return_exceptions=True)
            await asyncio.wait((asyncio.ensure_future(done),), timeout=0.002 + 0.006 * rounds)
            first.kill()
            await done
    async with node.executor() as caller:
        for number in range(8):
            await caller.start(box, f"e{number}", f"echo x >> c{number}")
            await caller.wait(box, f"e{number}")
            assert (box.tree / f"c{number}").read_text() == "x\n"
        await caller.start(box, "last", script)


async def test_a_recorded_start_is_gone_on_with(node: Node, box: Sandbox) -> None:
    record = left_over(node, box, "echo x >> count")
    async with node.executor() as caller:
        assert (await caller.get(box, "one")).state == pb.Execution.STATE_STARTING
        await caller.start(box, "one", "echo x >> count")
        assert (await caller.wait(box, "one")).create_time.ToNanoseconds() == record.created_ns
    assert (box.tree / "count").read_text() == "x\n"


async def test_a_recorded_start_of_a_gone_sandbox_never_was(node: Node, box: Sandbox) -> None:
    left_over(node, box, "true")
    await node.end(box)
    not_found = refused(Code.NOT_FOUND, Why.ERROR_REASON_EXECUTION_NOT_FOUND)
    async with node.executor() as caller, not_found:
        await caller.get(box, "one")


WAITING = "echo x >> count; until [ -e go ]; do sleep 0.05; done"


async def reach_the_agent(node: Node, box: Sandbox, record: Record) -> None:
    """What was on its way from the executor that is dead."""
    command = Command(argv=["sh", "-c", record.spec.script], env={"COVE_EXECUTION_ID": record.key})
    with ExitStack() as stack:
        log, result = opened(stack, record.folder)
        async with AgentClient.connect(node.runtime / "a" / box.uid, OWNER) as agent:
            await agent.start(record.key, command, Sinks(log=log, result=result))


async def test_a_start_that_reached_the_agent_is_not_repeated(node: Node, box: Sandbox) -> None:
    record = left_over(node, box, WAITING)
    await reach_the_agent(node, box, record)
    async with node.executor() as caller:
        again = await caller.start(box, "one", record.spec.script)
        assert again.state == pb.Execution.STATE_RUNNING
        (box.tree / "go").touch()
        assert (await caller.wait(box, "one")).exit.WhichOneof("reason") == "code"
    assert (box.tree / "count").read_text() == "x\n"


async def test_a_start_that_reaches_the_agent_after_it_was_asked_is_not_lost(
    node: Node, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = left_over(node, box, WAITING)
    listing, asked = AgentClient.listing, 0

    async def just_before(agent: AgentClient) -> Listing:
        nonlocal asked
        found = await listing(agent)
        asked += 1
        if asked == 1:
            await reach_the_agent(node, box, record)
        return found

    monkeypatch.setattr(AgentClient, "listing", just_before)
    async with node.executor() as caller:
        again = await caller.start(box, "one", record.spec.script)
        assert asked
        assert again.state == pb.Execution.STATE_RUNNING
        (box.tree / "go").touch()
        assert (await caller.wait(box, "one")).exit.WhichOneof("reason") == "code"
    assert (box.tree / "count").read_text() == "x\n"


async def test_a_dead_sandbox_loses_its_executions_and_no_output(
    node: Node, caller: Caller, box: Sandbox
) -> None:
    await caller.start(box, "one", "echo written; sleep 60")
    seen = bytearray()
    exits = []
    async for event in caller.read(box, "one"):
        seen += event.chunk.data
        if event.WhichOneof("event") == "chunk":
            os.kill(await node.agent_pid(box), signal.SIGKILL)
        if event.WhichOneof("event") == "exit":
            exits.append(event.exit)
    assert bytes(seen) == b"written\n"
    assert exits[0].WhichOneof("reason") == "lost"
    assert exits[0].output_bytes == 8
    assert exits[0].start_time.ToNanoseconds() > 0
    again = await caller.get(box, "one")
    assert again.exit == exits[0]
    assert (await caller.start(box, "one", "echo written; sleep 60")).exit == exits[0]
    await node.end(box)
    async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_EXECUTION_ENDED):
        await caller.signal(box, "one", 9, pb.SIGNAL_SCOPE_TREE)


async def test_the_output_of_what_is_told_as_lost_grows_no_more(
    node: Node, caller: Caller, box: Sandbox
) -> None:
    await caller.start(box, "one", "yes")
    agent = await node.agent_pid(box)
    following = asyncio.ensure_future(caller.output(box, "one"))
    async for event in caller.read(box, "one"):
        if event.chunk.offset > 1 << 20:
            os.kill(agent, signal.SIGKILL)
            break
    told = (await caller.wait(box, "one")).exit
    assert told.WhichOneof("reason") == "lost"
    assert len(await following) == told.output_bytes
    await node.end(box)
    assert len(await caller.output(box, "one")) == told.output_bytes
    assert (await caller.get(box, "one")).exit == told


async def test_a_sandbox_that_died_unseen_lost_its_executions(node: Node, box: Sandbox) -> None:
    async with node.executor() as caller:
        await caller.start(box, "one", "echo x; sleep 60")
        async for event in caller.read(box, "one"):
            if event.WhichOneof("event") == "chunk":
                break
    await node.end(box)
    async with node.executor() as caller:
        assert (await caller.get(box, "one")).exit.lost.reason
        assert await caller.output(box, "one") == b"x\n"


async def test_a_torn_record_of_a_dead_agent_is_delivered(node: Node, box: Sandbox) -> None:
    async with node.executor() as caller:
        script = "echo whole; until [ -e go ]; do sleep 0.02; done; echo torn; sleep 60"
        await caller.start(box, "one", script)
        async for event in caller.read(box, "one"):
            if event.chunk.data == b"whole\n":
                (box.tree / "go").touch()
            if event.chunk.data == b"torn\n":
                break
    await node.end(box)
    log = node.state / "executor" / "executions" / box.uid / "one" / "log"
    os.truncate(log, log.stat().st_size - 2)
    async with node.executor() as caller:
        assert (await caller.wait(box, "one")).output_bytes == 9
        assert await caller.output(box, "one") == b"whole\ntor"


async def test_an_agent_that_lies_about_the_end_harms_only_itself(
    node: Node, caller: Caller, box: Sandbox
) -> None:
    await caller.start(box, "one", "echo x; sleep 60")
    result = node.state / "executor" / "executions" / box.uid / "one" / "result"
    huge = 2**64 - 1
    lie = Result(
        kind=ExitKind.CODE,
        number=-(2**31),
        text="\x00",
        start_ns=huge,
        end_ns=huge,
        user_cpu_us=huge,
        system_cpu_us=huge,
        peak_memory_kib=huge,
        output_bytes=huge,
        dropped_bytes=1,
    )
    with result.open("r+b") as file:
        file.write(lie.encode())
    ended = await caller.wait(box, "one")
    assert ended.exit.code == -(2**31)
    events = [event async for event in caller.read(box, "one")]
    assert [event.WhichOneof("event") for event in events][-2:] == ["gap", "exit"]


async def test_a_damaged_result_is_no_end_while_the_agent_runs_it(
    node: Node, caller: Caller, box: Sandbox
) -> None:
    await caller.start(box, "one", "sleep 60")
    result = node.state / "executor" / "executions" / box.uid / "one" / "result"
    with result.open("r+b") as file:
        file.write(b"CoveExit" + b"\xff" * 100)
    assert (await caller.get(box, "one")).state == pb.Execution.STATE_RUNNING
    await node.end(box)

    async def ended() -> bool:
        return (await caller.get(box, "one")).state == pb.Execution.STATE_ENDED

    await until(ended)
    assert (await caller.get(box, "one")).exit.WhichOneof("reason") == "lost"


async def test_an_unreadable_record_holds_up_nobody(node: Node, box: Sandbox) -> None:
    async with node.executor() as caller:
        await caller.start(box, "other", "true")
        await caller.wait(box, "other")
    spec = node.state / "executor" / "executions" / box.uid / "other" / "spec"
    spec.write_bytes(b"no JSON")
    async with node.executor() as caller:
        await caller.execute(box, "true")
        request = pb.DeleteExecutionsRequest(parent=box.parent)
        assert (await caller.executions.DeleteExecutions(request)).removed == 2


async def test_what_killed_executors_left_is_swept(node: Node, box: Sandbox) -> None:
    root = node.state / "executor" / "executions"
    (root / box.uid).mkdir()
    dead, fresh = root / box.uid / ".dead-1", root / box.uid / ".new-1"
    dead.mkdir()
    fresh.mkdir()
    async with node.executor() as caller:
        await caller.execute(box, "true")

        async def swept() -> bool:
            return not dead.exists()

        await until(swept)
        assert fresh.exists()  # Perhaps somebody is at it.


async def test_control_groups_that_a_killed_executor_left_are_swept(
    node: Node, box: Sandbox
) -> None:
    if os.getuid() != 0:
        pytest.skip("control groups need root")
    with node.process() as process:
        async with calling(process.address) as caller:
            await caller.start(box, "one", "exec sleep 60")
            assert await node.groups(box)
        process.kill()
    async with AgentClient.connect(node.runtime / "a" / box.uid, OWNER) as agent:
        (running,) = (await agent.listing()).executions
        await agent.signal(running.execution_id, 9)

    async def swept() -> bool:
        return not await node.groups(box)

    async with node.executor():
        await until(swept)
