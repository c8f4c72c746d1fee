"""What is alive of executions: listed, and signalled, also when the command itself has ended."""

import os
import signal

import grpc
import pytest

from cove.errors.v1.errors_pb2 import ErrorReason as Why
from cove.executor.v1 import executor_pb2 as pb
from tests.executor.node import Caller, Node, Sandbox, refused, until

Code = grpc.StatusCode
LEAVE = "sleep 61 >/dev/null 2>&1 & setsid sleep 62 >/dev/null 2>&1 & "


async def alive(caller: Caller, box: Sandbox, execution_id: str) -> list[str]:
    found = (await caller.get(box, execution_id)).processes
    assert found.total == len(found.processes)
    return sorted(" ".join(each.argv) for each in found.processes)


async def test_what_goes_on_is_listed_with_the_execution_it_came_from(
    caller: Caller, box: Sandbox
) -> None:
    await caller.start(box, "one", f"{LEAVE} exit 3")
    await caller.start(box, "two", "exec sleep 63")
    ended = await caller.wait(box, "one")
    assert ended.exit.code == 3

    async def all_there() -> bool:
        one = await alive(caller, box, "one")
        two = await alive(caller, box, "two")
        return one == ["sleep 61", "sleep 62"] and two == ["sleep 63"]

    await until(all_there)
    request = pb.ListExecutionsRequest(parent=box.parent)
    listed = (await caller.executions.ListExecutions(request)).executions
    assert [each.processes.total for each in listed] == [2, 1]
    found = (await caller.get(box, "one")).processes.processes
    for each in found:
        assert each.pid > 1
        assert each.state in (pb.Process.STATE_SLEEPING, pb.Process.STATE_RUNNING)
        assert each.memory_bytes > 0
        assert abs(each.start_time.seconds - ended.start_time.seconds) < 60
    await caller.signal(box, "two", signal.SIGKILL, pb.SIGNAL_SCOPE_TREE)
    assert await alive(caller, box, "two") == []


async def test_its_group_and_its_tree_are_signalled_after_its_end(
    caller: Caller, box: Sandbox
) -> None:
    await caller.start(box, "one", LEAVE)
    await caller.wait(box, "one")

    async def left(names: list[str]) -> bool:
        return await alive(caller, box, "one") == names

    await until(lambda: left(["sleep 61", "sleep 62"]))
    async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_EXECUTION_ENDED):
        await caller.signal(box, "one", signal.SIGTERM, pb.SIGNAL_SCOPE_PROCESS)
    stopped = await caller.signal(box, "one", signal.SIGSTOP, pb.SIGNAL_SCOPE_TREE)
    assert stopped.state == pb.Execution.STATE_ENDED

    async def both_stopped() -> bool:
        found = (await caller.get(box, "one")).processes.processes
        return {each.state for each in found} == {pb.Process.STATE_STOPPED}

    await until(both_stopped)
    await caller.signal(box, "one", signal.SIGCONT, pb.SIGNAL_SCOPE_TREE)
    await caller.signal(box, "one", signal.SIGTERM, pb.SIGNAL_SCOPE_GROUP)
    await until(lambda: left(["sleep 62"]))
    async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_EXECUTION_ENDED):
        await caller.signal(box, "one", signal.SIGTERM, pb.SIGNAL_SCOPE_GROUP)
    await caller.signal(box, "one", signal.SIGTERM, pb.SIGNAL_SCOPE_TREE)
    await until(lambda: left([]))
    for number in (signal.SIGTERM, signal.SIGKILL):
        async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_EXECUTION_ENDED):
            await caller.signal(box, "one", number, pb.SIGNAL_SCOPE_TREE)


async def test_kill_of_a_tree_takes_what_an_ended_command_left(
    caller: Caller, box: Sandbox
) -> None:
    await caller.start(box, "one", f"trap '' TERM; {LEAVE} {LEAVE}")
    await caller.wait(box, "one")
    await caller.signal(box, "one", signal.SIGKILL, pb.SIGNAL_SCOPE_TREE)
    assert await alive(caller, box, "one") == []


@pytest.mark.long
async def test_a_kill_that_could_not_be_seen_through_may_be_asked_for_again(
    node: Node, caller: Caller, box: Sandbox
) -> None:
    """Whoever did not hear what came of it is not told that there was nothing to kill."""
    if os.geteuid() != 0:
        pytest.skip("without control groups it is the agent that kills")
    kill = ("one", signal.SIGKILL, pb.SIGNAL_SCOPE_TREE)
    await caller.start(box, "one", "setsid sleep 61 & sleep 61")
    agent = await node.agent_pid(box)
    os.kill(agent, signal.SIGSTOP)
    try:
        async with refused(Code.UNAVAILABLE, Why.ERROR_REASON_AGENT_UNAVAILABLE):
            await caller.signal(box, *kill)
    finally:
        os.kill(agent, signal.SIGCONT)
    assert (await caller.wait(box, "one")).exit.signal.number == signal.SIGKILL
    assert (await caller.signal(box, *kill)).state == pb.Execution.STATE_ENDED
    async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_EXECUTION_ENDED):
        await caller.signal(box, *kill)


async def test_a_list_is_bounded_and_says_how_many_there_are(caller: Caller, box: Sandbox) -> None:
    script = "i=0; while [ $i -lt 130 ]; do sleep 61 & i=$((i+1)); done; echo all; wait"
    await caller.start(box, "many", script)

    async def there() -> bool:
        return (await caller.get(box, "many")).processes.total >= 131

    await until(there)
    found = (await caller.get(box, "many")).processes
    assert len(found.processes) == 100
    long = "x" * 5000
    await caller.start(box, "long", f"sleep 61; : {long}")
    found = (await caller.get(box, "long")).processes
    assert len(" ".join(found.processes[0].argv)) <= 256


async def test_where_there_is_no_sandbox_nothing_is_alive(
    caller: Caller, box: Sandbox, node: Node
) -> None:
    await caller.start(box, "one", LEAVE)
    await caller.wait(box, "one")
    await node.end(box)
    found = await caller.get(box, "one")
    assert found.HasField("processes")
    assert found.processes.total == 0
