"""The scenario that a client in any language runs; tests/interop says what its lines mean."""

import hashlib
import json
import os
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from calling import TOKEN, again, connect, field, follow, reason

from cove.executor.v1.executor_pb2 import Execution, ExecutionSpec, WriteFileEnd
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1 import gateway_pb2_grpc as rpc
from cove.git.v1.git_pb2 import Commit, Signature
from cove.registry.v1.registry_pb2 import EnvironmentSpec

T = TypeVar("T")

SUFFIX = os.environ["COVE_SUFFIX"]
NAME = f"workspaces/python-{SUFFIX}"


def tell(step: str, **facts: Any) -> None:
    print(json.dumps({"step": step, **facts}), flush=True)


def refused(call: Callable[[], Any]) -> dict[str, str]:
    """How a call that must fail fails."""
    try:
        call()
    except grpc.RpcError as error:
        info = reason(error)
        facts = {"code": error.code().name, "reason": info.reason, "domain": info.domain}
        return {**facts, "field": field(error), "resource": info.metadata.get("name", "")}
    raise SystemExit("this call must fail")


def create(calls: grpc.Channel) -> None:
    workspaces = rpc.WorkspaceServiceStub(calls)
    request = pb.CreateWorkspaceRequest(
        workspace_id=f"python-{SUFFIX}",
        workspace=pb.Workspace(spec=EnvironmentSpec(repository=os.environ["COVE_REPOSITORY"])),
        request_id=str(uuid.uuid4()),
    )
    with connect(os.environ["COVE_LOSING_ADDRESS"]) as losing:
        stub = rpc.WorkspaceServiceStub(losing)
        made = again(stub.CreateWorkspace, request).workspace
    tell("create", name=made.name, uid=made.uid)
    same = workspaces.CreateWorkspace(request, metadata=TOKEN).workspace
    tell("again", same=same.uid == made.uid)

    request.workspace_id = f"python-{SUFFIX}-2"
    tell("reused", **refused(lambda: workspaces.CreateWorkspace(request, metadata=TOKEN)))
    missing = pb.GetWorkspaceRequest(name=f"workspaces/none-{SUFFIX}")
    tell("missing", **refused(lambda: workspaces.GetWorkspace(missing, metadata=TOKEN)))
    request = pb.CreateWorkspaceRequest(workspace_id="No Such!")
    tell("invalid", **refused(lambda: workspaces.CreateWorkspace(request, metadata=TOKEN)))


def run(calls: grpc.Channel) -> None:
    executions = rpc.ExecutionServiceStub(calls)
    request = pb.StartExecutionRequest(
        parent=NAME,
        execution=Execution(spec=ExecutionSpec(script="echo ran >> runs; seq -w 1048576")),
        request_id=str(uuid.uuid4()),
    )
    with connect(os.environ["COVE_LOSING_ADDRESS"]) as losing:
        stub = rpc.ExecutionServiceStub(losing)
        started = again(stub.StartExecution, request).execution
    tell("start", execution=started.name)

    output = hashlib.sha256()
    count = 0

    def write(data: bytes) -> None:
        nonlocal count
        output.update(data)
        count += len(data)

    with connect(os.environ["COVE_CUTTING_ADDRESS"]) as cutting:
        _, breaks = follow(cutting, started.name, write)
    tell("output", bytes=count, sha256=output.hexdigest(), breaks=breaks)

    waited = pb.WaitExecutionRequest(name=started.name)
    ended = executions.WaitExecution(waited, metadata=TOKEN).execution
    tell("exit", exit_code=ended.exit.code)
    failing = pb.ExecuteRequest(name=NAME, spec=ExecutionSpec(argv=["sh", "-c", "exit 3"]))
    failed = executions.Execute(failing, metadata=TOKEN).execution
    tell("failed", exit_code=failed.exit.code)


def commit(calls: grpc.Channel) -> None:
    source = rpc.SourceServiceStub(calls)
    content = b"hello from python\n"
    parts = [
        pb.WriteFileRequest(header=pb.WriteFileHeader(name=NAME, path="hello.txt")),
        pb.WriteFileRequest(data=content),
        pb.WriteFileRequest(end=WriteFileEnd(bytes=len(content))),
    ]
    written = rpc.FileServiceStub(calls).WriteFile(iter(parts), metadata=TOKEN).file
    tell("write", path=written.path)
    status = source.GetWorktreeStatus(pb.GetWorktreeStatusRequest(name=NAME), metadata=TOKEN).status
    tell("status", paths=[entry.path for entry in status.entries])

    author = Signature(name="Ada", email="ada@example.org")
    request = pb.CreateCommitRequest(
        parent=NAME,
        commit=Commit(message="Say hello", author=author),
        request_id=str(uuid.uuid4()),
    )
    with connect(os.environ["COVE_LOSING_ADDRESS"]) as losing:
        stub = rpc.SourceServiceStub(losing)
        made = again(stub.CreateCommit, request).commit
    tell("commit", commit=made.id)


def delete(calls: grpc.Channel) -> None:
    workspaces = rpc.WorkspaceServiceStub(calls)
    workspaces.DeleteWorkspace(pb.DeleteWorkspaceRequest(name=NAME), metadata=TOKEN)
    left = workspaces.GetWorkspace(pb.GetWorkspaceRequest(name=NAME), metadata=TOKEN).workspace
    tell("delete", deleted=left.state == pb.Workspace.STATE_DELETED)


if __name__ == "__main__":
    with connect(os.environ["COVE_ADDRESS"]) as calls:
        create(calls)
        run(calls)
        commit(calls)
        delete(calls)
