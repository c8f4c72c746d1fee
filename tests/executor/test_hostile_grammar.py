"""Whatever an agent in its sandbox makes up, it hurts its own workspace only."""

import asyncio
import os
import random
import resource
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cove.ended import First
from cove.executor.v1 import executor_pb2 as pb
from tests.executor import grammar, hostile
from tests.executor.node import Caller, Node, Sandbox, calling, running_node, start
from tests.executor.test_hostile_agent import FORBIDDEN, GROWTH, PATIENCE, descriptors, memory

EXAMPLES = int(os.environ.get("COVE_FUZZ_EXAMPLES", "200")) // 5
"""Of `make test-long`; each is an agent, which takes longer than an example elsewhere."""
FEW = 6
AT_ONCE = 6
INSIDE = """
_main = main


def main():
    try:
        with open("/workspace/.hostile") as file:
            seed = int(file.read())
    except OSError:
        return _main()
    from agent import grammar

    return grammar.main(seed)
"""
ENOUGH = 4 << 30
"""Bytes of address space, so that a failure is the executor's own, and not the machine's."""
SECRET = secrets.token_bytes(24)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """Its agents are hostile where the workspace says so."""
    folder = Path(tempfile.mkdtemp(prefix="cg", dir="/tmp"))
    state, runtime = folder / "s", folder / "r"
    for each in (state, runtime):
        each.mkdir(mode=0o700)
    try:
        with running_node(state, runtime) as running:
            (package,) = state.glob("launcher/*/agent")
            for module in (hostile, grammar):
                shutil.copy(str(module.__file__), package)
            with (package / "inside" / "main.py").open("a") as main:
                main.write(INSIDE)
            for compiled in package.glob("inside/__pycache__/main.*"):
                compiled.unlink()
            yield running
    finally:
        shutil.rmtree(folder)


class Heard:
    """All that callers were told of one workspace."""

    def __init__(self) -> None:
        self.codes: set[str] = set()
        self.forbidden: list[str] = []
        """What was said with a code that nobody may be told."""

    async def of(self, call: Any) -> None:
        """Make a call, of which whatever comes is looked through."""
        first = First(call)
        try:
            async with asyncio.timeout(30):
                if hasattr(call, "__aiter__"):
                    async for each in call:
                        self._look(each)
                else:
                    self._look(await call)
            self.codes.add("OK")
        except grpc.aio.AioRpcError as error:
            meant = first.meant(error)
            self.codes.add(meant.code().name)
            if meant.code().name in FORBIDDEN:
                self.forbidden.append(f"{meant.details()} {error.debug_error_string()}")

    def _look(self, message: Any) -> None:
        assert SECRET not in message.SerializeToString()


def calls(caller: Caller, box: Sandbox) -> Iterator[Any]:
    """One of each kind."""
    executions, files = caller.executions, caller.files
    name, handle = box.name("one"), box.handle
    bound: dict[str, Any] = {"timeout": PATIENCE / 2}
    yield executions.Execute(
        pb.ExecuteRequest(handle=handle, spec=pb.ExecutionSpec(argv=["true"])), **bound
    )
    yield executions.GetExecution(pb.GetExecutionRequest(name=name), **bound)
    yield executions.ListExecutions(pb.ListExecutionsRequest(parent=box.parent), **bound)
    yield executions.WaitExecution(pb.WaitExecutionRequest(name=name), **bound)
    yield executions.ReadOutput(pb.ReadOutputRequest(name=name), **bound)
    yield executions.ReadOutput(pb.ReadOutputRequest(name=name, from_offset=-9), **bound)
    yield executions.WatchUsage(pb.WatchUsageRequest(name=box.parent), **bound)
    yield executions.SignalExecution(
        pb.SignalExecutionRequest(name=name, signal=pb.SIGNAL_KILL), **bound
    )
    yield executions.WriteInput(pb.WriteInputRequest(name=name, data=b"x", offset=0), **bound)
    yield executions.ForwardPort(_port(handle), **bound)
    for path in ("f", "d/e", "."):
        yield files.ReadFile(pb.ReadFileRequest(handle=handle, path=path), **bound)
        yield files.StatFile(pb.StatFileRequest(handle=handle, path=path), **bound)
        yield files.ListFiles(pb.ListFilesRequest(handle=handle, path=path), **bound)
        yield files.WriteFile(_file(handle, path), **bound)
    made = pb.MakeDirectoryRequest(handle=handle, path="d/e", make_parents=True)
    yield files.MakeDirectory(made, **bound)
    yield files.RemoveFile(pb.RemoveFileRequest(handle=handle, path="f"), **bound)
    yield files.ReadArchive(pb.ReadArchiveRequest(handle=handle), **bound)
    yield files.WriteArchive(_archive(handle), **bound)
    yield files.WatchFiles(pb.WatchFilesRequest(handle=handle), **bound)


async def _port(handle: bytes) -> AsyncIterator[pb.ForwardPortRequest]:
    yield pb.ForwardPortRequest(target=pb.ForwardPortTarget(handle=handle, port=80))
    yield pb.ForwardPortRequest(data=b"x" * 1000)


async def _file(handle: bytes, path: str) -> AsyncIterator[pb.WriteFileRequest]:
    yield pb.WriteFileRequest(header=pb.WriteFileHeader(handle=handle, path=path))
    yield pb.WriteFileRequest(data=b"x" * 1000)
    yield pb.WriteFileRequest(end=pb.WriteFileEnd(bytes=1000))


async def _archive(handle: bytes) -> AsyncIterator[pb.WriteArchiveRequest]:
    yield pb.WriteArchiveRequest(header=pb.WriteArchiveHeader(handle=handle, path="d"))
    yield pb.WriteArchiveRequest(data=bytes(10240))
    yield pb.WriteArchiveRequest(end=pb.WriteFileEnd(bytes=10240))


async def one_agent(node: Node, caller: Caller, seed: int) -> set[str]:
    """The codes that were told of an agent of that seed."""
    heard = Heard()
    async with node.sandbox(files={".hostile": str(seed)}) as its:
        for execution_id in ("one", "two"):
            request = start(its, execution_id, "true")
            await heard.of(caller.executions.StartExecution(request, timeout=PATIENCE / 2))
        await asyncio.gather(*map(heard.of, calls(caller, its)))
    assert not heard.forbidden, f"seed {seed}: {heard.forbidden}"
    return heard.codes


async def many(node: Node, box: Sandbox, first: int, examples: int) -> None:
    """The neighbour works on, nothing of it is told, and the executor stays what it was."""
    (box.tree / "secret").write_bytes(SECRET)
    with node.process() as process:
        resource.prlimit(process.pid, resource.RLIMIT_AS, (ENOUGH, ENOUGH))
        async with calling(process.address) as caller:
            assert (await caller.execute(box, "echo fine")).stdout.text == "fine\n"
            before, held = memory(process.pid), descriptors(process)
            codes: set[str] = set()
            for at in range(first, first + examples, AT_ONCE):
                seeds = range(at, min(at + AT_ONCE, first + examples))
                codes |= set().union(
                    *await asyncio.gather(*(one_agent(node, caller, each) for each in seeds))
                )
                assert (await caller.execute(box, "true; echo fine")).stdout.text == "fine\n", seeds
                assert memory(process.pid) - before < GROWTH, seeds
                assert descriptors(process) < held + 40 * AT_ONCE, seeds
            assert len(codes) > 3, codes
        assert process.process.poll() is None
    assert (box.tree / "secret").read_bytes() == SECRET


async def test_what_an_agent_makes_up_hurts_nobody_else(node: Node, box: Sandbox) -> None:
    await many(node, box, 1, FEW)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_whatever_an_agent_makes_up_hurts_nobody_else(node: Node, box: Sandbox) -> None:
    first = int(os.environ.get("COVE_FUZZ_SEED", random.randrange(1 << 32)))
    print("seeds from", first)  # noqa: T201
    await many(node, box, first, EXAMPLES)
