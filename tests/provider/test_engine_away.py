"""An engine that is away, or answers nothing, is nothing to what stands on other drivers."""

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.provider.v1 import provider_pb2 as pb
from services.provider.drivers.docker.engine import Engine, EngineAway
from tests.agent.node import Node, new_uid
from tests.provider.conftest import Suite, serving
from tests.provider.test_service import refused


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Path]:
    """The socket of an engine that takes every connection, and says nothing."""
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(128)
        yield path


@contextlib.asynccontextmanager
async def beside(node: Node, engine: Path) -> AsyncIterator[Suite]:
    """A provider for the sandboxes of this node, and for containers of that engine."""
    drivers = ("local", "docker")
    async with serving(node, drivers=drivers, node="n1", docker_socket=engine) as suite:
        yield suite


@pytest.mark.long
async def test_a_node_answers_while_an_engine_does_not(node: Node, silent: Path) -> None:
    async with beside(node, silent) as suite:
        for _ in range(2):
            asked = suite.stub.GetCapabilities(pb.GetCapabilitiesRequest(), timeout=29)
            told = {each.driver: each for each in (await asked).drivers}
            assert told["local"].remedy == ""
            assert "does not answer" in told["docker"].remedy
            assert told["docker"].isolation == pb.Capabilities.ISOLATION_UNSPECIFIED


async def test_an_engine_that_is_away_keeps_nobody_from_what_is_not_its_own(
    node: Node, tmp_path: Path
) -> None:
    async with beside(node, tmp_path / "none") as suite:
        uid = new_uid()
        handle = await suite.provisioned(uid)
        await suite.stub.ActivateEnvironment(pb.ActivateEnvironmentRequest(handle=handle))
        used = await suite.stub.GetTenantUsage(pb.GetTenantUsageRequest(admit=True))
        assert used.active_environments >= 1
        assert (await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))).existed
        # Of what nobody has a record, it must be known that none has it.
        again = suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))
        assert await refused(again) == ErrorReason.ERROR_REASON_SERVICE_UNAVAILABLE


async def test_nobody_at_the_socket_is_an_engine_that_is_away(tmp_path: Path) -> None:
    async with Engine.open(tmp_path / "none") as engine:
        with pytest.raises(EngineAway):
            await engine.image("any")
        with pytest.raises(EngineAway):
            await engine.containers("any")


async def test_what_others_have_is_listed_for_whom_a_part_is_enough(
    node: Node, tmp_path: Path, silent: Path
) -> None:
    async with beside(node, silent) as suite:
        uid = new_uid()
        await suite.provisioned(uid)
        asked = pb.ListProvisionedRequest(return_partial_success=True)
        listed = await suite.stub.ListProvisioned(asked, timeout=29)
        assert uid in [each.uid for each in listed.observations]
        assert listed.unreachable == ["docker"]
    async with beside(node, tmp_path / "none") as suite:
        whole = pb.ListProvisionedRequest()
        refusal = await refused(suite.stub.ListProvisioned(whole))
        assert refusal == ErrorReason.ERROR_REASON_SERVICE_UNAVAILABLE
        listed = await suite.stub.ListProvisioned(asked)
        assert uid in [each.uid for each in listed.observations]
        assert listed.unreachable == ["docker"]
        await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))
