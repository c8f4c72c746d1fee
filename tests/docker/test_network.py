"""What a container may reach: nothing, or a list, by the proxy that local sandboxes have too."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.docker.images import BARE
from tests.docker.stage import Docker
from tests.egress.world import HERE, outside
from tests.support.suite import Suite, running_suite

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def suite(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    env = {
        "COVE_DRIVERS": "docker,local",
        "COVE_PROVIDER__DOCKER_SOCKET": str(docker.socket),
        "COVE_PROVIDER__DOCKER_IMAGE": BARE,
        "COVE_PROVIDER__EGRESS_NETWORKS": "127.0.0.0/8",
    }
    folder: Path = tmp_path_factory.mktemp("suite")
    async with running_suite(folder, env=env) as running:
        yield running


async def test_a_list_is_what_a_container_reaches(suite: Suite) -> None:
    async with outside() as server, suite.client() as cove:
        get = f"wget -q -O /dev/null http://{HERE}:{server.port}/ && echo reached; true"
        async with await cove.workspaces.create(network=[f"{HERE}:{server.port}"]) as workspace:
            assert (await workspace.execute(script=get, check=True)).text == "reached\n"
            await suite.kill("provider")
            assert (await workspace.execute(script=get, check=True)).text == "reached\n"
            await workspace.update(network=["example.org"])
            assert (await workspace.execute(script=get, check=True)).text == ""
            await workspace.update(network=[])
            assert (await workspace.execute(script=get, check=True)).text == ""
        async with await cove.workspaces.create() as workspace:
            assert (await workspace.execute(script=get, check=True)).text == ""


async def test_a_setup_reaches_what_its_workspace_may(suite: Suite) -> None:
    async with outside() as server, suite.client() as cove:
        get = f"wget -q -O /dev/null http://{HERE}:{server.port}/ && echo reached > /etc/seen; true"
        see = "cat /etc/seen; true"
        async with await cove.workspaces.create(
            network=[f"{HERE}:{server.port}"], setup=[get]
        ) as workspace:
            assert (await workspace.execute(script=see, check=True)).text == "reached\n"
        async with await cove.workspaces.create(setup=[get, "true"]) as workspace:
            assert (await workspace.execute(script=see, check=True)).text == ""
