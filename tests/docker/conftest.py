"""One engine for all tests of the driver; where none can be started they say why."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.compose.machine import Cannot
from tests.docker.engine import bench, engine
from tests.docker.images import bring_debian
from tests.docker.stage import Docker, Place, Stage, place, serving


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    with bench() as made:
        yield made


@pytest.fixture(scope="session")
def docker(folder: Path) -> Iterator[Docker]:
    """An engine with the image BARE."""
    with contextlib.ExitStack() as stack:
        try:
            address = stack.enter_context(engine(folder))
        except Cannot as error:
            pytest.skip(f"no engine of containers: {error}")
        yield Docker(Path(address.removeprefix("unix://")))


@pytest.fixture(scope="session")
def debian(docker: Docker, folder: Path) -> str:
    """The digest of the image DEBIAN."""
    try:
        return bring_debian(docker.address, folder / "debian")
    except Cannot as error:
        pytest.skip(f"no Debian: {error}")


@pytest.fixture(scope="module")
def where(docker: Docker) -> Iterator[Place]:
    with place(docker) as made:
        yield made
        assert docker.names() == set()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(where: Place) -> AsyncIterator[Stage]:
    """A provider and an executor; whatever a module made is released at its end."""
    async with serving(where) as made:
        yield made
        listed = await made.stub.ListProvisioned(made.everything())
        for each in listed.observations:
            await made.stub.ReleaseEnvironment(made.releasing(each.uid))
