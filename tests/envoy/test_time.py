"""Calls that last longer than Envoy lets those wait that do not."""

import asyncio
import time
from typing import Final

import grpc
import pytest

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1 import gateway_pb2_grpc as rpc
from tests.envoy.behind import Files, Gateway
from tests.envoy.edge import edge
from tests.envoy.test_edge import bearer
from tests.servicekit.failing import failure
from tests.support.suite import Suite

SHORT: Final = {
    "{cluster: gateways, timeout: 45s, retry_policy: *reading}": (
        "{cluster: gateways, timeout: 0.5s, retry_policy: *reading}"
    ),
    "{cluster: gateways, timeout: 45s, retry_policy: *unseen}": (
        "{cluster: gateways, timeout: 0.5s, retry_policy: *unseen}"
    ),
    "stream_idle_timeout: 300s": "stream_idle_timeout: 1s",
}


@pytest.mark.long
async def test_streams_and_long_calls_outlive_the_timeouts(
    files: Files, behind: list[Gateway], suite: Suite
) -> None:
    """A unary call that waits is ended by the timeout, so it is in force; at the same time a
    stream, a command that is waited for, and an open terminal in which nothing happens are not."""
    shown = bearer(suite.token)
    async with (
        edge(files, behind, changes=SHORT) as hasty,
        hasty.channel() as channel,
        grpc.aio.insecure_channel(suite.grpc) as patient,
    ):
        workspaces = rpc.WorkspaceServiceStub(patient)
        executions = rpc.ExecutionServiceStub(channel)
        name = "workspaces/lasting"
        request = pb.CreateWorkspaceRequest(workspace_id="lasting")
        await workspaces.CreateWorkspace(request, metadata=shown)
        silent = executor_pb2.ExecutionSpec(
            argv=["sleep", "30"], stdin=executor_pb2.ExecutionSpec.STDIN_OPEN
        )
        started = await rpc.ExecutionServiceStub(patient).StartExecution(
            pb.StartExecutionRequest(parent=name, execution=executor_pb2.Execution(spec=silent)),
            metadata=shown,
        )

        async def wait() -> None:
            """Nobody reads it: it does not get on."""
            request = pb.WriteInputRequest(
                name=started.execution.name, offset=0, data=bytes(1 << 20)
            )
            await executions.WriteInput(request, metadata=shown)

        began = time.monotonic()
        attached = executions.Attach(metadata=shown)
        await attached.write(
            pb.AttachRequest(
                open=pb.AttachRequest.Open(name=started.execution.name, read_only=True)
            )
        )
        script = executor_pb2.ExecutionSpec(script="sleep 3; echo over")
        done, failed, first = await asyncio.gather(
            executions.Execute(pb.ExecuteRequest(name=name, spec=script), metadata=shown),
            failure(wait()),
            attached.read(),
        )
        assert done.stdout.text == "over\n"
        assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")
        assert time.monotonic() - began > 3
        assert first is not grpc.aio.EOF
        assert not attached.done()
        attached.cancel()
        await workspaces.DeleteWorkspace(
            pb.DeleteWorkspaceRequest(name=name, force=True), metadata=shown
        )
