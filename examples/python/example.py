"""Run a script in a workspace of a repository, see what it prints, commit and push what it changed.

Usage: example REPOSITORY SCRIPT, with COVE_TOKEN, and COVE_ADDRESS unless it is 127.0.0.1:7420;
`https://host:port` is spoken to with TLS.
"""

import os
import sys
import uuid

import grpc
from calling import again, connect, follow, reason

from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1 import gateway_pb2_grpc as rpc


def once() -> str:
    """A request id: the same in every retry of one request, which is carried out once."""
    return str(uuid.uuid4())


def run(channel: grpc.Channel, workspace_id: str, url: str, script: str) -> int:
    """Returns the exit status of the script."""
    name = f"workspaces/{workspace_id}"
    workspaces = rpc.WorkspaceServiceStub(channel)
    executions = rpc.ExecutionServiceStub(channel)
    # snippet:begin
    # A request is the same until it is answered, and is carried out once.
    made = {"spec": {"repository": url}}
    create = pb.CreateWorkspaceRequest(workspace_id=workspace_id, workspace=made, request_id=once())
    again(workspaces.CreateWorkspace, create)
    try:
        runs = {"spec": {"script": script}}
        start = pb.StartExecutionRequest(parent=name, execution=runs, request_id=once())
        execution = again(executions.StartExecution, start).execution
        ended, _ = follow(channel, execution.name, show)  # By offset.
        push(rpc.SourceServiceStub(channel), name, script)
    finally:
        delete(workspaces, name)  # What is not pushed is kept for a day.
    # snippet:end
    return ended.code if ended.HasField("code") else 1  # A signal or a limit ended it.


def show(output: bytes) -> None:
    """As it comes."""
    sys.stdout.buffer.write(output)
    sys.stdout.buffer.flush()


def push(source: rpc.SourceServiceStub, name: str, message: str) -> None:
    """Commit what there is, and push it to where the repository is from."""
    commit = pb.CreateCommitRequest(parent=name, commit={"message": message}, request_id=once())
    try:
        print("commit", again(source.CreateCommit, commit).commit.id, file=sys.stderr)
    except grpc.RpcError as error:
        if reason(error).reason != "ERROR_REASON_NOTHING_TO_COMMIT":
            raise
        print("nothing to commit", file=sys.stderr)
    else:
        again(source.PushBranch, pb.PushBranchRequest(name=name, request_id=once()))


def delete(workspaces: rpc.WorkspaceServiceStub, name: str) -> None:
    """A failure is only told: another may have come before it."""
    request = pb.DeleteWorkspaceRequest(name=name, allow_missing=True, request_id=once())
    try:
        again(workspaces.DeleteWorkspace, request)
    except grpc.RpcError as error:
        print(f"{name} is still there: {error.details()}", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print("usage: example REPOSITORY SCRIPT", file=sys.stderr)
        sys.exit(2)
    with connect(os.environ.get("COVE_ADDRESS", "127.0.0.1:7420")) as channel:
        sys.exit(run(channel, f"python-{uuid.uuid4().hex[:8]}", *sys.argv[1:]))
