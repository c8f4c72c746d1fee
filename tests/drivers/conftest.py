"""The conformance suite of drivers: the same tests for each, on a suite of real processes.

What a driver claims (`GetCapabilities`) is tested; what it does not is tested to be refused at
create with a remedy. A driver is added to MAKERS; one that cannot be had here says why.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from tests.compose.machine import Cannot
from tests.docker.standing import docker, docker_debian
from tests.drivers.dagger_standing import dagger, dagger_engine
from tests.drivers.standing import Maker, Stage, local, staged
from tests.suite.conftest import repository

__all__ = ["repository"]

MAKERS: Final[dict[str, Maker]] = {
    "local": local,
    "docker": docker,
    "docker-debian": docker_debian,
    "dagger": dagger,
    "dagger_engine": dagger_engine,
}
MARKS: Final = {
    "docker": (pytest.mark.docker,),
    "docker-debian": (pytest.mark.docker, pytest.mark.long),
    "dagger": (pytest.mark.long,),
    "dagger_engine": (pytest.mark.long, pytest.mark.dagger_engine),
}
"""Those that start an engine have a target of `make` of their own; the others take longer than
there is time for in `make test`."""


@pytest_asyncio.fixture(
    scope="package",
    loop_scope="package",
    params=[pytest.param(name, marks=MARKS.get(name, ())) for name in MAKERS],
)
async def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    path: Path = tmp_path_factory.mktemp(request.param)
    try:
        async with staged(MAKERS[request.param], path) as made:
            yield made
    except Cannot as error:
        pytest.skip(f"no {request.param} here: {error}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The suite lives in one event loop, and so do the tests on it."""
    for item in items:
        if "/tests/drivers/" in str(item.path) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="package"), append=False)
