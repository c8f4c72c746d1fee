"""The suite under measurement: `cove up` on a temporary state directory."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks.engine import IMAGE, Engine
from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import (
    ExecutionServiceStub,
    WorkspaceServiceStub,
)
from cove.registry.v1 import registry_pb2
from cove.registry.v1.registry_pb2_grpc import RegistryServiceStub

SERVICE_METADATA = (("cove-principal", "admin"), ("cove-tenant", "default"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    channel: grpc.aio.Channel
    metadata: tuple[tuple[str, str], ...]
    runtime: Path
    state: Path
    pid: int
    engine: Engine | None
    """To compare with; None where there is none."""

    @property
    def workspaces(self) -> WorkspaceServiceStub:
        return WorkspaceServiceStub(self.channel)

    @property
    def executions(self) -> ExecutionServiceStub:
        return ExecutionServiceStub(self.channel)

    async def create(
        self, repository: Path, name: str, revision: str = "", driver: str = ""
    ) -> pb.Workspace:
        spec = registry_pb2.EnvironmentSpec(
            repository=f"file://{repository}", revision=revision, driver=driver
        )
        request = pb.CreateWorkspaceRequest(workspace_id=name, workspace=pb.Workspace(spec=spec))
        answer = await self.workspaces.CreateWorkspace(request, metadata=self.metadata)
        return answer.workspace

    async def execute(self, name: str, *argv: str) -> None:
        request = pb.ExecuteRequest(
            name=f"workspaces/{name}", spec=executor_pb2.ExecutionSpec(argv=argv)
        )
        answer = await self.executions.Execute(request, metadata=self.metadata)
        assert answer.execution.exit.code == 0

    async def start(self, name: str, *argv: str) -> str:
        """Of the execution that was started the name."""
        request = pb.StartExecutionRequest(
            parent=f"workspaces/{name}",
            execution=executor_pb2.Execution(spec=executor_pb2.ExecutionSpec(argv=argv)),
        )
        answer = await self.executions.StartExecution(request, metadata=self.metadata)
        return answer.execution.name

    async def delete(self, name: str) -> None:
        request = pb.DeleteWorkspaceRequest(name=f"workspaces/{name}", force=True)
        await self.workspaces.DeleteWorkspace(request, metadata=self.metadata)

    async def environment(self, name: str) -> registry_pb2.Environment:
        """The record behind a workspace, for calls that go round the gateway."""
        async with grpc.aio.insecure_channel(f"unix:{self.runtime}/registry") as channel:
            answer = await RegistryServiceStub(channel).GetEnvironment(
                registry_pb2.GetEnvironmentRequest(name=f"environments/{name}"),
                metadata=SERVICE_METADATA,
            )
        return answer.environment

    def descendants(self) -> list[int]:
        """Pids of all processes of the suite."""
        return tree(self.pid)

    def processes(self) -> dict[str, int]:
        """Pid of each service, by its name, among the children of `cove up`."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            for word in command:
                if parent == self.pid and (word.startswith("services.") or word == "gateway"):
                    found[word.removeprefix("services.")] = int(entry.name)
        return found


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    todo, found = [pid], []
    while todo:
        pid = todo.pop()
        found.append(pid)
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                todo += map(int, (task / "children").read_text().split())
    return found


def _on(engine: Engine) -> dict[str, str]:
    """Variables of a suite whose workspaces may stand on this engine too."""
    return {
        "COVE_DRIVERS": "local,docker",
        "COVE_PROVIDER__DOCKER_SOCKET": str(engine.socket),
        "COVE_PROVIDER__DOCKER_IMAGE": IMAGE,
    }


@asynccontextmanager
async def suite(engine: Engine | None = None) -> AsyncIterator[Suite]:
    root = Path(tempfile.mkdtemp(prefix="cove-bench-"))
    up = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "cove"),
        *("up", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"),
        env={
            **os.environ,
            "COVE_STATE": f"{root}/state",
            "COVE_RUNTIME": f"{root}/run",
            **(_on(engine) if engine else {}),
        },
        stdout=subprocess.PIPE,
        stderr=(root / "log").open("wb"),
    )
    try:
        assert up.stdout is not None
        line = await up.stdout.readline()
        if not line:
            raise SystemExit((root / "log").read_text())
        ready = json.loads(line)
        token = Path(ready["token_file"]).read_text().strip()
        async with grpc.aio.insecure_channel(ready["grpc"]) as channel:
            yield Suite(
                channel=channel,
                metadata=(("authorization", f"Bearer {token}"),),
                runtime=root / "run",
                state=root / "state",
                pid=up.pid,
                engine=engine,
            )
    finally:
        if up.returncode is None:
            up.terminate()
        await up.wait()
        shutil.rmtree(root)


def make_repository(folder: Path, files: int) -> Path:
    """A repository with one commit of so many small files."""
    folder.mkdir(parents=True)
    for number in range(files):
        path = folder / f"d{number % 100:02}" / f"file{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"file {number}\n" * 20)
    for command in (
        ["init", "-q", "-b", "main"],
        ["add", "-A"],
        ["-c", "user.name=bench", "-c", "user.email=bench@example.org", "commit", "-qm", "base"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder
