"""A tool that refuses what a gateway itself asks: as when it does not know the gateway for a
while, or is an older one. What gateways do by themselves goes on with the others, and after it."""

from datetime import timedelta
from functools import partial

import grpc
import pytest

from cove.gateway.v1 import gateway_pb2 as pb
from cove.git.v1 import git_pb2
from cove.git.v1.git_pb2_grpc import GitServiceStub
from gateway import trail
from servicekit.errors import Unauthenticated
from tests.gateway.stage import Gateway, Stage, eventually
from tests.gateway.test_audit import APPEND, nothing, of_call
from tests.servicekit.failing import failure

DEMO = "workspaces/demo"
STRANGER = Unauthenticated("no certificate of a known caller")
OLDER = grpc.StatusCode.UNIMPLEMENTED


async def test_the_audit_log_goes_on_when_the_registry_knows_the_gateway_again(
    stage: Stage, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else no call that changes something would be taken any more, once enough of them wait."""
    monkeypatch.setattr(trail, "_UNSENT", 3)
    stage.registry.fail(APPEND, STRANGER, times=2)
    for id_ in ("one", "two", "three", "four", "five"):
        await eventually(partial(_taken, gateway, id_))
        assert await of_call(gateway, id_)


async def _taken(gateway: Gateway, id_: str) -> bool:
    try:
        await nothing(gateway, id_)
    except grpc.aio.AioRpcError:
        return False
    return True


async def test_uses_are_noted_when_the_registry_knows_the_gateway_again(stage: Stage) -> None:
    async with stage.gateway(activity_interval=timedelta(seconds=0.05)) as gateway:
        await gateway.workspaces.CreateWorkspace(stage.create())
        stage.registry.fail("BatchUpdateEnvironments", STRANGER, times=2)
        start = pb.StartExecutionRequest(parent=DEMO, execution_id="long")
        start.execution.spec.argv.extend(["sleep", "1000"])
        await gateway.executions.StartExecution(start)
        waiting = gateway.executions.WaitExecution(
            pb.WaitExecutionRequest(name=f"{DEMO}/executions/long")
        )
        before = (await stage.records())[0].last_active_time.ToNanoseconds()

        async def noted() -> bool:
            batches = stage.registry.calls.count("BatchUpdateEnvironments")
            active = (await stage.records())[0].last_active_time
            return batches > 2 and active.ToNanoseconds() > before

        await eventually(noted)
        waiting.cancel()


async def test_one_tool_that_refuses_holds_up_nothing_else(stage: Stage) -> None:
    """What another gateway left is finished, though nobody can look for orphans."""
    async with stage.gateway(reconcile_interval=timedelta(hours=1)) as gateway:
        created = await gateway.workspaces.CreateWorkspace(
            stage.create(spec={"ttl": timedelta(hours=1)})
        )
        assert created.workspace.HasField("expire_time")
    stage.provider.fail("ListProvisioned", STRANGER)
    stage.times.pass_(timedelta(hours=2))
    async with stage.gateway():
        await eventually(stage.empty)


@pytest.mark.parametrize("rpc", ["CreateWorktree", "ProvisionEnvironment"])
async def test_a_caller_is_told_nothing_of_it_but_the_id_of_its_call(
    stage: Stage, gateway: Gateway, rpc: str
) -> None:
    for tool in (stage.git, stage.provider):
        tool.fail(rpc, STRANGER)
    metadata = (("x-request-id", "mine"),)
    told = await failure(gateway.workspaces.CreateWorkspace(stage.create(), metadata=metadata))
    assert (told.code, told.text) == (grpc.StatusCode.INTERNAL, "internal error")
    assert told.info.metadata == {"request_id": "mine"}


async def test_an_older_executor_has_no_say_about_orphans_and_stops_nobody(stage: Stage) -> None:
    stage.executor.fail("ListExecuted", code=OLDER)
    async with stage.direct("git") as channel:
        tree = git_pb2.CreateWorktreeRequest(uid="a" * 16, branch="cove/demo")
        await GitServiceStub(channel).CreateWorktree(tree)
    assert not await stage.empty()
    async with stage.gateway():
        await eventually(stage.empty)


@pytest.mark.parametrize("code", [OLDER, grpc.StatusCode.UNAVAILABLE])
async def test_what_is_known_without_the_executor_is_told(
    stage: Stage, gateway: Gateway, code: grpc.StatusCode
) -> None:
    """It is away, or an older one."""
    stage.executor.fail("GetCapabilities", code=code)
    answer = await gateway.workspaces.GetCapabilities(pb.GetCapabilitiesRequest())
    assert answer.provider.default_driver == "local"
    assert not answer.HasField("executor")
