"""One stage for all tests here, which leave it as they found it."""

from collections.abc import AsyncIterator
from typing import Final

import pytest
import pytest_asyncio

from tests.access.stage import Stage, staged

SESSION: Final = "session"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The stage lives in one event loop, and so do the tests on it."""
    for item in items:
        if "/tests/access/" in str(item.path) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope=SESSION), append=False)


@pytest_asyncio.fixture(scope=SESSION, loop_scope=SESSION)
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with staged(tmp_path_factory.mktemp("access")) as stage:
        yield stage
