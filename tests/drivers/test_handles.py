"""Handles that are stale, forged, another's, or of an unknown version open nothing."""

import base64

import grpc
import pytest

from agent.handle import Handle
from cove.errors.v1.errors_pb2 import ErrorReason
from cove.executor.v1 import executor_pb2
from cove.executor.v1.executor_pb2_grpc import ExecutorServiceStub, FileServiceStub
from cove.provider.v1 import provider_pb2
from cove.registry.v1 import registry_pb2
from cove.registry.v1.registry_pb2_grpc import RegistryServiceStub
from servicekit.status import reason
from tests.drivers.standing import Stage

REFUSED = (
    ErrorReason.ERROR_REASON_HANDLE_INVALID,
    ErrorReason.ERROR_REASON_HANDLE_STALE,
    ErrorReason.ERROR_REASON_NOT_PROVISIONED,
    ErrorReason.ERROR_REASON_ENVIRONMENT_DORMANT,
)


async def _handle(stage: Stage, uid: str) -> bytes:
    found = await stage.provisioned(uid)
    assert found
    return found.handle


async def _opens_nothing(stage: Stage, handle: bytes) -> None:
    """Neither provider nor executor does anything with it."""
    async with stage.provider() as provider:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await provider.ActivateEnvironment(
                provider_pb2.ActivateEnvironmentRequest(handle=handle)
            )
        assert reason(caught.value) in REFUSED
    async with grpc.aio.insecure_channel(stage.suite.address("executor")) as channel:
        spec = executor_pb2.ExecutionSpec(argv=["touch", "/workspace/opened"])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ExecutorServiceStub(channel).Execute(
                executor_pb2.ExecuteRequest(handle=handle, execution_id="forged", spec=spec)
            )
        assert reason(caught.value) in REFUSED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await FileServiceStub(channel).StatFile(
                executor_pb2.StatFileRequest(handle=handle, path=".")
            )
        assert reason(caught.value) in REFUSED


async def test_forged_handles_open_nothing(stage: Stage) -> None:
    async with await stage.create() as workspace:
        await workspace.execute("true", check=True)
        handle = await _handle(stage, workspace.message.uid)
        known = Handle.decode(handle)
        plain = base64.urlsafe_b64decode(handle + b"=" * (-len(handle) % 4)).decode()
        forged = {
            "nothing": b"x",
            "old": base64.urlsafe_b64encode(f"0:{plain.split(':', 1)[1]}".encode()).rstrip(b"="),
            "new": base64.urlsafe_b64encode(f"9:{plain.split(':', 1)[1]}".encode()).rstrip(b"="),
            "node": Handle(driver=known.driver, node="elsewhere", uid=known.uid).encode(),
            "driver": Handle(driver="none", node=known.node, uid=known.uid).encode(),
            "uid": Handle(driver=known.driver, node=known.node, uid="a" * 16).encode(),
        }
        for each in forged.values():
            await _opens_nothing(stage, each)
        assert "opened" not in {each.path for each in await workspace.list()}


async def test_one_of_another_driver_opens_nothing(stage: Stage) -> None:
    other = "local" if stage.standing.name != "local" else "docker"
    async with await stage.create() as workspace:
        await workspace.execute("true", check=True)
        known = Handle.decode(await _handle(stage, workspace.message.uid))
        forged = Handle(driver=other, node=known.node, uid=known.uid)
        await _opens_nothing(stage, forged.encode())
        assert "opened" not in {each.path for each in await workspace.list()}


async def test_one_of_another_workspace_does_not_open_this_one(stage: Stage) -> None:
    """The locator of one with the uid of another is neither's."""
    async with await stage.create() as one, await stage.create() as other:
        await one.execute("true", check=True)
        await other.execute("true", check=True)
        first = Handle.decode(await _handle(stage, one.message.uid))
        second = Handle.decode(await _handle(stage, other.message.uid))
        if not first.locator:
            pytest.skip(f"handles of {stage.standing.name} say no more than the uid")
        crossed = Handle(
            driver=first.driver,
            node=first.node,
            uid=first.uid,
            generation=second.generation,
            engine=second.engine,
            locator=second.locator,
        )
        await _opens_nothing(stage, crossed.encode())


async def test_a_stale_one_opens_nothing_and_callers_never_notice(stage: Stage) -> None:
    async with await stage.create() as workspace:
        before = await _handle(stage, workspace.message.uid)
        await workspace.execute(script="echo x > file", check=True)
        after = await _handle(stage, workspace.message.uid)
        if not Handle.decode(after).locator:
            assert before == after
            return
        assert Handle.decode(after).generation > Handle.decode(before).generation
        await _opens_nothing(stage, before)
        assert (await workspace.execute("cat", "file")).text == "x\n"


async def test_the_record_has_the_handle_in_force_when_a_command_has_ended(stage: Stage) -> None:
    """Where handles move, the answer tells the next one, and the gateway notes it."""
    async with await stage.create() as workspace:
        await workspace.execute(script="echo x > file", check=True)
        name = workspace.name.replace("workspaces/", "environments/")
        address = stage.suite.address("registry")
        async with grpc.aio.insecure_channel(address) as channel:
            answer = await RegistryServiceStub(channel).GetEnvironment(
                registry_pb2.GetEnvironmentRequest(name=name),
                metadata=(("cove-principal", "admin"), ("cove-tenant", "default")),
            )
        assert answer.environment.handle == await _handle(stage, workspace.message.uid)
