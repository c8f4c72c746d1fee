"""Run a script in a workspace of a repository, see what it prints, commit and push what it changed.

Usage: example REPOSITORY SCRIPT, with COVE_TOKEN, and COVE_ADDRESS unless it is 127.0.0.1:7420.
"""

import os
import sys
import uuid

import grpc
from calling import again, connect, details, follow

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
    source = rpc.SourceServiceStub(channel)
    # snippet:begin
    # A request is the same until it is answered, and is carried out once.
    made = {"spec": {"repository": url}}
    create = pb.CreateWorkspaceRequest(workspace_id=workspace_id, workspace=made, request_id=once())
    again(workspaces.CreateWorkspace, create)
    runs = {"spec": {"script": script}}
    start = pb.StartExecutionRequest(parent=name, execution=runs, request_id=once())
    execution = again(executions.StartExecution, start).execution
    ended, _ = follow(channel, execution.name, sys.stdout.buffer.write)  # By offset.
    # snippet:end
    try:
        commit = pb.CreateCommitRequest(parent=name, commit={"message": script}, request_id=once())
        print("commit", again(source.CreateCommit, commit).commit.id, file=sys.stderr)
    except grpc.RpcError as error:
        if details(error)[0].reason != "ERROR_REASON_NOTHING_TO_COMMIT":
            raise
        print("nothing to commit", file=sys.stderr)
    else:
        again(source.PushBranch, pb.PushBranchRequest(name=name, request_id=once()))
    return ended.code if ended.HasField("code") else 1  # A signal or a limit ended it.


def main(url: str, script: str) -> int:
    workspace_id = f"python-{uuid.uuid4().hex[:8]}"
    with connect(os.environ.get("COVE_ADDRESS", "127.0.0.1:7420")) as channel:
        try:
            return run(channel, workspace_id, url, script)
        finally:
            delete = pb.DeleteWorkspaceRequest(
                name=f"workspaces/{workspace_id}", force=True, allow_missing=True, request_id=once()
            )
            again(rpc.WorkspaceServiceStub(channel).DeleteWorkspace, delete)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
