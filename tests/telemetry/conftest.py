"""One suite that sends its traces to a collector and lets its metrics be read."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.suite import SERVICES, Suite, running_suite
from tests.telemetry.collector import Collector, collecting


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as running:
        yield running


@pytest.fixture(scope="package")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sockets for operators are."""
    folder = tmp_path_factory.mktemp("admin")
    folder.chmod(0o700)
    return folder


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def suite(
    collector: Collector, admin: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Suite]:
    env = {f"COVE_{name.upper()}__ADMIN_ADDRESS": f"unix:{admin}/{name}" for name in SERVICES}
    env |= {"COVE_TRACES": collector.url, "COVE_TRACES_RATIO": "0"}
    async with running_suite(tmp_path_factory.mktemp("suite"), env=env) as running:
        yield running
