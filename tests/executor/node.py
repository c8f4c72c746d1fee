"""A node to test on: a launcher, its sandboxes, and executors, all real."""

import asyncio
import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent import SANDBOX_UID
from agent.handle import Handle
from agent.launcher_client import LauncherClient
from agent.protocol import Limits, SandboxSpec
from cove.executor.v1 import executor_pb2 as pb
from cove.executor.v1.executor_pb2_grpc import ExecutorServiceStub, FileServiceStub
from servicekit.status import reason
from services.executor.app import executor
from services.executor.config import Config
from services.executor.record import Record, Spec
from services.executor.store import Store

NODE = "test"
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
OWNER = SANDBOX_UID if os.getuid() == 0 else os.getuid()
CODE = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
"""Where processes of ours find programs and modules."""
OPTIONS = (("grpc.max_receive_message_length", 16 << 20),)


@dataclass(frozen=True)
class Sandbox:
    """An environment with a running agent."""

    uid: str
    handle: bytes
    tree: Path
    """Its worktree, outside."""

    @property
    def parent(self) -> str:
        return f"environments/{self.uid}"

    def name(self, execution_id: str) -> str:
        return f"{self.parent}/executions/{execution_id}"


class Caller:
    """A client of one executor."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.executions = ExecutorServiceStub(channel)
        self.files = FileServiceStub(channel)

    async def start(
        self, box: Sandbox, execution_id: str, script: str, **spec: Any
    ) -> pb.Execution:
        answer = await self.executions.StartExecution(start(box, execution_id, script, **spec))
        return answer.execution

    async def execute(self, box: Sandbox, script: str, **spec: Any) -> pb.ExecuteResponse:
        wanted = pb.ExecutionSpec(script=script, **spec)
        return await self.executions.Execute(pb.ExecuteRequest(handle=box.handle, spec=wanted))

    async def get(self, box: Sandbox, execution_id: str) -> pb.Execution:
        request = pb.GetExecutionRequest(name=box.name(execution_id))
        return (await self.executions.GetExecution(request)).execution

    async def wait(self, box: Sandbox, execution_id: str) -> pb.Execution:
        request = pb.WaitExecutionRequest(name=box.name(execution_id))
        return (await self.executions.WaitExecution(request, timeout=120)).execution

    async def signal(
        self, box: Sandbox, execution_id: str, number: int, scope: int = 0
    ) -> pb.Execution:
        request = pb.SignalExecutionRequest(
            name=box.name(execution_id),
            signal=pb.Signal.Name(number),  # type: ignore[arg-type]
            scope=pb.SignalScope.Name(scope),  # type: ignore[arg-type]
        )
        return (await self.executions.SignalExecution(request)).execution

    def read(
        self,
        box: Sandbox,
        execution_id: str,
        from_offset: int = 0,
        *,
        follow: bool = True,
        batched: bool = False,
    ) -> Any:
        """The call of ReadOutput, to be iterated."""
        return self.executions.ReadOutput(
            pb.ReadOutputRequest(
                name=box.name(execution_id),
                from_offset=from_offset,
                follow=follow,
                batched=batched,
            ),
            timeout=150,
        )

    async def output(self, box: Sandbox, execution_id: str, from_offset: int = 0) -> bytes:
        """All output to the end; checks that offsets have no hole."""
        data = bytearray()
        at: int | None = from_offset if from_offset >= 0 else None
        last = ""
        async for event in self.read(box, execution_id, from_offset):
            last = event.WhichOneof("event")
            if last == "chunk":
                assert at is None or event.chunk.offset == at
                data += event.chunk.data
                at = event.chunk.offset + len(event.chunk.data)
        assert last == "exit"
        return bytes(data)


def start(box: Sandbox, execution_id: str, script: str, **spec: Any) -> pb.StartExecutionRequest:
    return pb.StartExecutionRequest(
        handle=box.handle,
        execution_id=execution_id,
        execution=pb.Execution(spec=pb.ExecutionSpec(script=script, **spec)),
    )


@dataclass(frozen=True)
class Process:
    """An executor in a process of its own."""

    pid: int
    address: str
    process: "subprocess.Popen[bytes]"

    def kill(self) -> None:
        """As by `kill -9`."""
        self.process.kill()
        self.process.wait()


class Node:
    """State, runtime and launcher, and what is started on them."""

    def __init__(self, state: Path, runtime: Path) -> None:
        self.state = state
        self.runtime = runtime
        self._numbers = itertools.count()

    def config(self, **fields: Any) -> Config:
        address = f"unix:{self.runtime}/e{next(self._numbers)}"
        values: dict[str, Any] = {
            "heartbeat": timedelta(seconds=0.2),
            "disk_limit": 1.1,
            "node": NODE,
        } | fields
        return Config(state=self.state, runtime=self.runtime, address=(address,), **values)

    @asynccontextmanager
    async def executor(self, **fields: Any) -> AsyncIterator[Caller]:
        """An executor in this process, and a client of it."""
        async with executor(self.config(**fields)) as served, calling(served.address) as caller:
            yield caller

    def environment(self, address: str) -> dict[str, str]:
        """Of an executor of its own process."""
        return {
            **CODE,
            "COVE_STATE": str(self.state),
            "COVE_RUNTIME": str(self.runtime),
            "COVE_EXECUTOR__ADDRESS": address,
            "COVE_EXECUTOR__DISK_LIMIT": "1.1",
            "COVE_EXECUTOR__HEARTBEAT": "1s",
            "COVE_EXECUTOR__LOG_LEVEL": "error",
        }

    @contextmanager
    def process(self) -> Iterator[Process]:
        """`python -m services.executor`."""
        address = f"unix:{self.runtime}/p{next(self._numbers)}"
        env = self.environment(address)
        argv = [sys.executable, "-m", "services.executor"]
        with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout
                ready = json.loads(process.stdout.readline())
                assert ready["addresses"] == [address]
                yield Process(process.pid, address, process)
            finally:
                process.kill()

    @asynccontextmanager
    async def sandbox(
        self, files: Mapping[str, str] | None = None, **limits: int
    ) -> AsyncIterator[Sandbox]:
        """An environment, whose agent answers when this returns; `files` are there before."""
        box, spec = self.place(**limits)
        for name, content in (files or {}).items():
            (box.tree / name).write_text(content)
        async with LauncherClient.connect(self.runtime / "launcher") as launcher:
            await launcher.start(spec)
        try:
            yield box
        finally:
            await self.end(box)

    def place(self, **limits: int) -> tuple[Sandbox, SandboxSpec]:
        """The directories of an environment that does not run yet, and what starts it."""
        uid = "".join(secrets.choice(ALPHABET) for _ in range(16))
        tree = self.state / "git" / "worktrees" / uid / "tree"
        home = self.state / "provider" / "environments" / uid / "home"
        tmp = home.with_name("tmp")
        for folder in (tree, home, tmp):
            folder.mkdir(parents=True)
            os.chown(folder, OWNER, OWNER)
        handle = Handle(driver="local", node=NODE, uid=uid).encode()
        spec = SandboxSpec(
            uid=uid, worktree=str(tree), home=str(home), tmp=str(tmp), limits=Limits(**limits)
        )
        return Sandbox(uid, handle, tree), spec

    async def end(self, box: Sandbox) -> None:
        """Kill the sandbox."""
        async with LauncherClient.connect(self.runtime / "launcher") as launcher:
            await launcher.kill(box.uid)

    async def agent_pid(self, box: Sandbox) -> int:
        async with LauncherClient.connect(self.runtime / "launcher") as launcher:
            return (await launcher.inspect(box.uid)).pid

    async def groups(self, box: Sandbox) -> list[str]:
        """Names of the control groups of executions that are there."""
        async with LauncherClient.connect(self.runtime / "launcher") as launcher:
            paths = (await launcher.inspect(box.uid)).cgroups
        return [each.name for path in paths for each in Path(path).glob("x-*")]


@asynccontextmanager
async def calling(address: str) -> AsyncIterator[Caller]:
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        yield Caller(channel)


@contextmanager
def recorded(
    store: Store, uid: str, execution_id: str, spec: Spec, now_ns: int
) -> Iterator[Record]:
    """A new execution, held and not started."""
    draft = store.draft(uid)
    try:
        record = store.name(draft, uid, execution_id, spec, now_ns, ())
    except OSError:
        store.discard(draft)
        raise
    try:
        yield record
    finally:
        draft.close()


@contextmanager
def running_node(state: Path, runtime: Path) -> Iterator[Node]:
    """A node whose launcher runs; ends it and its sandboxes."""
    argv = [sys.executable, "-m", "agent.launcher", "--runtime", str(runtime), "--state"]
    argv += [str(state), "--node", NODE, "--stop-sandboxes"]
    with subprocess.Popen(argv, env=CODE) as process:
        try:
            await_listener(runtime / "launcher")
            yield Node(state, runtime)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def await_listener(path: Path) -> None:
    give_up = time.monotonic() + 20
    while time.monotonic() < give_up:
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.connect(str(path))
            return
        time.sleep(0.01)
    raise AssertionError(f"nobody listens at {path}")


@asynccontextmanager
async def refused(code: grpc.StatusCode, why: int) -> AsyncIterator[None]:
    """The block's call fails so."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield
    assert (caught.value.code(), reason(caught.value)) == (code, why), caught.value


async def until(condition: Any, seconds: float = 30.0) -> None:
    """Wait for what has no event; fails after `seconds`."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 # It happens in another process.
            await asyncio.sleep(0.01)
