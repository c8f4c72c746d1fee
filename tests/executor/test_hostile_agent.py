"""An agent that lies hurts its own workspace only: the executor lives, and stays as it was."""

import asyncio
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.handle import Handle
from cove.executor.v1 import executor_pb2 as pb
from tests.executor import hostile
from tests.executor.node import (
    ALPHABET,
    NODE,
    OWNER,
    Caller,
    Node,
    Process,
    Sandbox,
    calling,
    start,
)
from tests.servicekit.failing import answered

FORBIDDEN = {"INTERNAL", "UNKNOWN"}
"""What is told when the executor itself fails."""
GROWTH = 24 << 20
PATIENCE = 2.0


@contextmanager
def hostile_agent(node: Node, manner: str) -> Iterator[Sandbox]:
    """An environment whose agent is none of ours."""
    uid = "".join(secrets.choice(ALPHABET) for _ in range(16))
    tree = node.state / "git" / "worktrees" / uid / "tree"
    tree.mkdir(parents=True)
    path = node.runtime / "a" / uid
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(100)
        argv = [sys.executable, hostile.__file__, str(listener.fileno()), str(OWNER), manner]
        process = subprocess.Popen(argv, pass_fds=(listener.fileno(),))
    handle = Handle(driver="local", node=NODE, uid=uid).encode()
    try:
        yield Sandbox(uid, handle, tree)
    finally:
        process.kill()
        process.wait()
        path.unlink()


def starts(caller: Caller, box: Sandbox) -> Iterator[Awaitable[Any]]:
    for execution_id in ("one", "two"):
        request = start(box, execution_id, "true")
        yield caller.executions.StartExecution(request, timeout=PATIENCE)


def everything(caller: Caller, box: Sandbox) -> Iterator[Awaitable[Any]]:
    """A call of each kind; those that the agent answers with a descriptor for each kind of that."""
    executions, files = caller.executions, caller.files
    name, handle = box.name("one"), box.handle
    bound: dict[str, Any] = {"timeout": PATIENCE}
    yield executions.GetExecution(pb.GetExecutionRequest(name=name), **bound)
    yield executions.ListExecutions(pb.ListExecutionsRequest(parent=box.parent), **bound)
    yield executions.WaitExecution(pb.WaitExecutionRequest(name=name), timeout=0.3)
    yield _drained(executions.ReadOutput(pb.ReadOutputRequest(name=name), timeout=0.3))
    tail = pb.ReadOutputRequest(name=name, from_offset=-5, follow=False)
    yield _drained(executions.ReadOutput(tail, **bound))
    signal = pb.SignalExecutionRequest(name=name, signal=pb.SIGNAL_TERM)
    yield executions.SignalExecution(signal, **bound)
    made = pb.MakeDirectoryRequest(handle=handle, path="d/e", make_parents=True)
    yield files.MakeDirectory(made, **bound)
    yield files.RemoveFile(pb.RemoveFileRequest(handle=handle, path="f"), **bound)
    for _ in range(hostile.KINDS):
        yield _drained(files.ReadFile(pb.ReadFileRequest(handle=handle, path="f"), **bound))
        yield files.StatFile(pb.StatFileRequest(handle=handle, path="f"), **bound)
        yield files.ListFiles(pb.ListFilesRequest(handle=handle, path="."), **bound)
        yield files.WriteFile(_written(handle), **bound)


async def _drained(call: Any) -> int:
    """How many bytes came."""
    return sum([len(getattr(event, "data", b"") or event.chunk.data) async for event in call])


async def _written(handle: bytes) -> AsyncIterator[pb.WriteFileRequest]:
    yield pb.WriteFileRequest(header=pb.WriteFileHeader(handle=handle, path="f"))
    yield pb.WriteFileRequest(data=b"x")
    yield pb.WriteFileRequest(end=pb.WriteFileEnd(bytes=1))


async def outcome(call: Awaitable[Any]) -> str:
    """What a caller was told: never that the executor itself failed, of which all is said."""
    try:
        async with asyncio.timeout(30):
            await answered(call)
    except grpc.aio.AioRpcError as error:
        code = error.code().name
        return f"{code}: {error.debug_error_string()}" if code in FORBIDDEN else code
    return "OK"


def descriptors(process: Process) -> int:
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


def memory(pid: int) -> int:
    """Bytes that a process holds."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) << 10


def manners() -> Iterator[Any]:
    for manner in hostile.MANNERS:
        quick = manner in ("descriptors_of_no_reply", "wrong_descriptors")
        yield manner if quick else pytest.param(manner, marks=pytest.mark.long)


@pytest.mark.parametrize("manner", list(manners()))
async def test_an_agent_that_lies_hurts_its_own_workspace_only(
    node: Node, box: Sandbox, manner: str
) -> None:
    with node.process() as process:
        async with calling(process.address) as caller:
            assert (await caller.execute(box, "echo fine")).stdout.text == "fine\n"
            before, held = memory(process.pid), descriptors(process)
            with hostile_agent(node, manner) as its:
                told = [await outcome(call) for call in starts(caller, its)]
                told += await asyncio.gather(*map(outcome, everything(caller, its)))
                gone = pb.DeleteExecutionRequest(name=its.name("one"), force=True)
                delete = caller.executions.DeleteExecution(gone, timeout=PATIENCE)
                told.append(await outcome(delete))
                failed = [each for each in told if each.partition(":")[0] in FORBIDDEN]
                assert not failed, failed
                assert set(told) - {"OK", "NOT_FOUND"}
                assert (await caller.execute(box, "echo fine")).stdout.text == "fine\n"
            assert memory(process.pid) - before < GROWTH
            assert descriptors(process) < held + 40
        assert process.process.poll() is None
