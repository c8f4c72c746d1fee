"""One suite for all tests of the gateway; each test finds it empty and leaves it so."""

from collections.abc import AsyncIterator
from typing import Final

import pytest
import pytest_asyncio

from tests.gateway.stage import Gateway, Stage, staged

SESSION: Final = "session"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The suite lives in one event loop, and so do the tests on it."""
    for item in items:
        if "/tests/gateway/" in str(item.path) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope=SESSION), append=False)


@pytest_asyncio.fixture(scope=SESSION, loop_scope=SESSION)
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with staged(tmp_path_factory.mktemp("suite")) as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope=SESSION)
async def stage(suite: Stage) -> AsyncIterator[Stage]:
    suite.reset()
    yield suite
    suite.reset()
    await suite.clear()


@pytest_asyncio.fixture(loop_scope=SESSION)
async def gateway(stage: Stage) -> AsyncIterator[Gateway]:
    async with stage.gateway() as gateway:
        yield gateway
