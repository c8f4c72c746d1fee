"""What a workspace may reach: from its create on, at a change, and in what is made of it."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.registry.v1 import registry_pb2
from servicekit.status import reason, told
from tests.egress.world import HERE, outside
from tests.gateway.stage import Gateway, Stage, eventually

DEMO = "workspaces/demo"
PRINTED = 'curl -sS -o /dev/null -w "%{http_code}" -m 20 '
"""The status that curl sees, 000 for none."""


def network(*rules: tuple[str, Sequence[int]]) -> registry_pb2.Network:
    made = [registry_pb2.Network.Rule(host=host, ports=ports) for host, ports in rules]
    return registry_pb2.Network(allow=made)


def update(*rules: tuple[str, Sequence[int]], **changes: Any) -> pb.UpdateWorkspaceRequest:
    spec = registry_pb2.EnvironmentSpec(network=network(*rules))
    workspace = pb.Workspace(name=DEMO, spec=spec, **changes.pop("workspace", {}))
    mask = FieldMask(paths=changes.pop("paths", ["spec.network"]))
    return pb.UpdateWorkspaceRequest(workspace=workspace, update_mask=mask, **changes)


async def said(gateway: Gateway, script: str, name: str = DEMO) -> str:
    request = pb.ExecuteRequest(name=name, spec=executor_pb2.ExecutionSpec(script=script))
    return (await gateway.executions.Execute(request)).stdout.text


async def test_a_list_reaches_commands_forks_and_the_next_sandbox(
    stage: Stage, gateway: Gateway
) -> None:
    async with outside() as server:
        get = f"{PRINTED} http://{HERE}:{server.port}/"
        allowed = (HERE, [server.port])
        made = await gateway.workspaces.CreateWorkspace(
            stage.create("demo", spec={"network": network(allowed)})
        )
        assert made.workspace.spec.network == network(allowed)
        assert await said(gateway, get) == "200"
        assert await said(gateway, "echo $https_proxy $NO_PROXY") == (
            "http://127.0.0.1:3128 localhost,127.0.0.1,::1\n"
        )
        await stage.end_sandbox("demo")
        assert await said(gateway, get) == "200"
        await gateway.workspaces.SnapshotWorkspace(
            pb.SnapshotWorkspaceRequest(name=DEMO, snapshot_id="s")
        )
        for fork, snapshot in (("fork", ""), ("other", "s")):
            request = pb.ForkWorkspaceRequest(name=DEMO, workspace_id=fork, snapshot_id=snapshot)
            await gateway.workspaces.ForkWorkspace(request)
            assert await said(gateway, get, f"workspaces/{fork}") == "200"
        cut = await gateway.workspaces.UpdateWorkspace(update((HERE, [1])))
        assert cut.workspace.spec.network == network((HERE, [1]))
        assert await said(gateway, get) == "403"
        assert await said(gateway, get, "workspaces/fork") == "200"
        await gateway.workspaces.UpdateWorkspace(update())
        assert await said(gateway, f"{get}; env | grep -i proxy") == "000"
        assert await said(gateway, f"{get} --proxy http://127.0.0.1:3128") == "000"


async def test_a_network_is_changed_with_labels_and_an_etag(stage: Stage, gateway: Gateway) -> None:
    made = (await gateway.workspaces.CreateWorkspace(stage.create("demo"))).workspace
    request = update(
        ("example.org", [443]),
        workspace={"labels": {"a": "b"}, "etag": made.etag},
        paths=["labels", "spec.network"],
        request_id=str(uuid.uuid4()),
    )
    changed = (await gateway.workspaces.UpdateWorkspace(request)).workspace
    assert changed.labels == {"a": "b"}
    assert changed.spec.network == network(("example.org", [443]))
    assert changed.spec.repository == made.spec.repository
    again = (await gateway.workspaces.UpdateWorkspace(request)).workspace
    assert (again.spec, again.labels) == (changed.spec, changed.labels)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await gateway.workspaces.UpdateWorkspace(update(workspace={"etag": made.etag}))
    assert reason(failure.value) == ErrorReason.ERROR_REASON_ETAG_MISMATCH
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await gateway.workspaces.UpdateWorkspace(update(paths=["spec"]))
    assert reason(failure.value) == ErrorReason.ERROR_REASON_FIELD_IMMUTABLE
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await gateway.workspaces.UpdateWorkspace(update(("[::1::]", [443])))
    assert "workspace.spec.network.allow[0].host" in str(told(failure.value))


@pytest.mark.long
async def test_a_change_whose_answer_is_lost_is_finished(stage: Stage, gateway: Gateway) -> None:
    """By a retry, or by whoever finds it: what is recorded comes into force."""
    async with outside() as server:
        get = f"{PRINTED} http://{HERE}:{server.port}/"
        await gateway.workspaces.CreateWorkspace(
            stage.create("demo", spec={"network": network((HERE, [1]))})
        )
        assert await said(gateway, get) == "403"
        stage.provider.fail("UpdateNetwork")
        request = update((HERE, [server.port]), request_id=str(uuid.uuid4()))
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await gateway.workspaces.UpdateWorkspace(request)
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        stage.provider.heal()
        await eventually(stage.settled)
        assert await said(gateway, get) == "200"
        retried = await gateway.workspaces.UpdateWorkspace(request)
        assert retried.workspace.spec.network == network((HERE, [server.port]))


@pytest.mark.parametrize(
    ("tool", "rpc", "done"),
    [
        pytest.param("registry", "UpdateEnvironment", True, marks=pytest.mark.long),
        ("provider", "UpdateNetwork", False),
        pytest.param("provider", "UpdateNetwork", True, marks=pytest.mark.long),
        pytest.param("registry", "ReleaseOperation", False, marks=pytest.mark.long),
    ],
)
async def test_a_gateway_that_dies_leaves_no_policy_half_changed(
    stage: Stage, tool: str, rpc: str, done: bool
) -> None:
    async with outside() as server:
        get = f"{PRINTED} http://{HERE}:{server.port}/"
        async with stage.gateway_process() as victim:
            spec = {"network": network((HERE, [server.port]))}
            await victim.workspaces.CreateWorkspace(stage.create("demo", spec=spec))
            assert await said(victim, get) == "200"
            held = getattr(stage, tool).hold(rpc, done=done)
            calling = asyncio.ensure_future(victim.workspaces.UpdateWorkspace(update((HERE, [1]))))
            await held.reached.wait()
            await victim.kill()
            with pytest.raises(grpc.aio.AioRpcError):
                await calling
            stage.reset()
        async with stage.gateway() as gateway:
            await eventually(stage.settled)
            assert await said(gateway, get) == "403"
            shown = await gateway.workspaces.GetWorkspace(pb.GetWorkspaceRequest(name=DEMO))
            assert shown.workspace.spec.network == network((HERE, [1]))
