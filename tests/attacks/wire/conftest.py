"""One suite for all attacks on the wire."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.attacks.wire.watched import Watched, watched


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def target(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    async with watched(tmp_path_factory.mktemp("wire")) as made:
        yield made
