"""Starts that were prepared: what is killed before they are used, and what is left of them."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest

from agent.client import AgentClient, CommandLimits
from cove.errors.v1.errors_pb2 import ErrorReason as Why
from cove.executor.v1 import executor_pb2 as pb
from services.executor.store import Store
from tests.executor.node import OWNER, Caller, Node, Sandbox, calling, refused, start, until
from tests.support.suite import children

Code = grpc.StatusCode
UID = "a" * 16


def folder(node: Node, box: Sandbox) -> Path:
    return node.state / "executor" / "executions" / box.uid


def drafts(node: Node, box: Sandbox) -> list[Path]:
    return list(folder(node, box).glob(".new-*"))


def ready(node: Node, box: Sandbox) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return len(drafts(node, box)) >= 3

    return look


async def prepared(node: Node, caller: Caller, box: Sandbox) -> None:
    """Return when the next start finds something prepared."""
    await caller.execute(box, "true")
    await until(ready(node, box))
    async with AgentClient.connect(node.runtime / "a" / box.uid, OWNER) as agent:
        assert (await agent.listing()).processes == 0


async def test_prepared_starts_are_used_and_made_again(
    node: Node, caller: Caller, box: Sandbox
) -> None:
    await prepared(node, caller, box)
    before = {each.name.removeprefix(".new-") for each in drafts(node, box)}
    for number in range(12):
        done = await caller.execute(box, f"echo {number}; cat /proc/self/cgroup")
        assert done.stdout.text.splitlines()[0] == str(number)
    assert not before & {each.name.removeprefix(".new-") for each in drafts(node, box)}


async def test_an_executor_killed_before_the_use_leaves_nothing(node: Node, box: Sandbox) -> None:
    with node.process() as process:
        async with calling(process.address) as caller:
            await prepared(node, caller, box)
        process.kill()

    async def swept() -> bool:
        return not await node.groups(box)

    async with node.executor() as caller:
        await until(swept)
        assert (await caller.executions.ListExecutions(listing(box))).executions
        Store(node.state / "executor" / "executions", making=0.0).sweep()
        assert not drafts(node, box)
        assert (await caller.execute(box, "echo x")).stdout.text == "x\n"


def listing(box: Sandbox) -> pb.ListExecutionsRequest:
    return pb.ListExecutionsRequest(parent=box.parent)


@pytest.mark.parametrize("rounds", range(6))
async def test_a_prepared_start_killed_anywhere_runs_once_when_retried(
    node: Node, box: Sandbox, rounds: int
) -> None:
    with node.process() as process:
        async with calling(process.address) as caller:
            await prepared(node, caller, box)
            call = caller.executions.StartExecution(start(box, "one", "echo x >> count"))
            await asyncio.wait((asyncio.ensure_future(call.code()),), timeout=0.0015 * rounds)
            process.kill()
            await call.code()
    async with node.executor() as caller:
        await caller.start(box, "one", "echo x >> count")
        assert (await caller.wait(box, "one")).exit.code == 0
    assert (box.tree / "count").read_text() == "x\n"


async def test_an_agent_killed_before_the_use_costs_no_id(
    node: Node, caller: Caller, box: Sandbox
) -> None:
    await prepared(node, caller, box)
    os.kill(await node.agent_pid(box), signal.SIGKILL)
    await node.end(box)
    async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_ENVIRONMENT_DORMANT):
        await caller.start(box, "one", "true")
    assert not (folder(node, box) / "one").exists()

    async def discarded() -> bool:
        return not drafts(node, box)

    await until(discarded)


@pytest.mark.parametrize("name", ["KILL", "STOP"])
async def test_a_command_that_signals_everybody_costs_only_time(
    node: Node, caller: Caller, box: Sandbox, name: str
) -> None:
    await prepared(node, caller, box)
    await caller.execute(box, f"kill -{name} -1")
    for number in range(5):
        done = await caller.execute(box, f"echo {number}")
        ended = done.execution.exit
        assert (ended.WhichOneof("reason"), ended.code) == ("code", 0), ended
        assert done.stdout.text == f"{number}\n"


async def test_a_start_that_is_refused_leaves_nothing_that_waits(
    node: Node, caller: Caller, box: Sandbox
) -> None:
    await prepared(node, caller, box)
    async with AgentClient.connect(node.runtime / "a" / box.uid, OWNER) as agent:
        for number in range(256):  # So many that it takes no more limits.
            await agent.limit(f"other{number}", CommandLimits(output_bytes=1))
        await until(ready(node, box))
        waiting = set(children(agent.pid))
        request = start(box, "one", "true")
        request.execution.spec.output_limit = 1000
        async with refused(Code.UNAVAILABLE, Why.ERROR_REASON_AGENT_UNAVAILABLE):
            await caller.executions.StartExecution(request)

        async def one_less() -> bool:
            return len(waiting.intersection(children(agent.pid))) == len(waiting) - 1

        await until(one_less)


async def test_what_cannot_start_frees_its_id(node: Node, caller: Caller, box: Sandbox) -> None:
    await prepared(node, caller, box)
    for _ in range(6):
        request = start(box, "one", "")
        request.execution.spec.CopyFrom(pb.ExecutionSpec(argv=["no-such-program"]))
        async with refused(Code.NOT_FOUND, Why.ERROR_REASON_PROGRAM_NOT_FOUND):
            await caller.executions.StartExecution(request)
    await caller.start(box, "one", "true")
    assert (await caller.wait(box, "one")).exit.code == 0


async def test_killing_the_tree_of_a_prepared_start_kills_all(
    node: Node, caller: Caller, box: Sandbox
) -> None:
    await prepared(node, caller, box)
    await caller.start(box, "one", "(setsid setsid sleep 300 &); exec sleep 300")
    await caller.signal(box, "one", signal.SIGKILL, pb.SIGNAL_SCOPE_TREE)
    async with AgentClient.connect(node.runtime / "a" / box.uid, OWNER) as agent:
        assert (await agent.listing()).processes == 0


async def test_deleting_all_takes_what_is_prepared_along(
    node: Node, caller: Caller, box: Sandbox
) -> None:
    await prepared(node, caller, box)
    request = pb.DeleteExecutionsRequest(parent=box.parent)
    assert (await caller.executions.DeleteExecutions(request)).removed == 1
    assert (await caller.execute(box, "echo x")).stdout.text == "x\n"


def test_a_draft_is_swept_when_its_maker_is_gone(tmp_path: Path) -> None:
    store = Store(tmp_path / "executions", making=0.0)
    draft = store.draft(UID)
    store.sweep()
    assert draft.folder.exists()
    draft.close()
    store.sweep()
    assert not draft.folder.exists()


async def test_what_a_killed_executor_was_writing_is_removed(node: Node, box: Sandbox) -> None:
    async def endless() -> AsyncIterator[pb.WriteFileRequest]:
        yield pb.WriteFileRequest(header=pb.WriteFileHeader(handle=box.handle, path="file"))
        yield pb.WriteFileRequest(data=b"x")
        await asyncio.Event().wait()

    async def begun() -> bool:
        return bool(list(box.tree.glob(".cove-*")))

    async def gone() -> bool:
        return not await begun() and not list(folder(node, box).glob(".draft-*"))

    with node.process() as process:
        async with calling(process.address) as caller:
            call = caller.files.WriteFile(endless())
            await until(begun)
            process.kill()
            await call.code()
    async with node.executor():
        await until(gone)
    assert not (box.tree / "file").exists()
