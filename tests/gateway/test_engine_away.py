"""An engine that is away keeps nothing that stands on other drivers from being seen to."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from cove.provider.v1 import provider_pb2
from cove.registry.v1 import registry_pb2
from cove.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tests.gateway.stage import Stage, State, eventually, staged

HOUR = timedelta(hours=1)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """With a driver whose engine is not there."""
    folder = tmp_path_factory.mktemp("suite")
    provider = {"drivers": ("local", "docker"), "docker_socket": folder / "none", "node": "node-1"}
    async with staged(folder, settings={"provider": provider}) as stage:
        yield stage


async def test_what_is_idle_is_suspended(stage: Stage) -> None:
    request = stage.create()
    request.workspace.spec.idle_timeout.FromTimedelta(HOUR)
    async with stage.gateway() as gateway:
        await gateway.workspaces.CreateWorkspace(request)
        await _looked(stage, 3)
        stage.times.pass_(HOUR)
        await eventually(lambda: _is(stage, State.STATE_SUSPENDED))


async def test_what_has_no_record_is_removed(stage: Stage) -> None:
    async with stage.gateway() as gateway:
        await gateway.workspaces.CreateWorkspace(stage.create())
    async with stage.direct("registry") as channel:
        request = registry_pb2.DeregisterEnvironmentRequest(name="environments/demo")
        await RegistryServiceStub(channel).DeregisterEnvironment(request)
    async with stage.gateway():
        await eventually(stage.empty)


async def test_what_is_not_listed_may_be_of_that_engine(stage: Stage) -> None:
    """As the provider lists it whose default driver is another."""

    def unlisted(data: bytes) -> bytes:
        listed = provider_pb2.ListProvisionedResponse.FromString(data)
        assert listed.unreachable == ["docker"]
        del listed.observations[:]
        return listed.SerializeToString()

    async with stage.gateway() as gateway:
        await gateway.workspaces.CreateWorkspace(stage.create())
    stage.forget()
    stage.provider.alter("ListProvisioned", unlisted)
    async with stage.gateway():
        await _looked(stage, 4)
    assert "ClaimOperation" not in stage.registry.calls


async def _is(stage: Stage, state: State.ValueType) -> bool:
    return [each.state for each in await stage.records()] == [state]


async def _looked(stage: Stage, times: int) -> None:
    until = stage.registry.calls.count("ListEnvironments") + times

    async def looked() -> bool:
        return stage.registry.calls.count("ListEnvironments") >= until

    await eventually(looked)
