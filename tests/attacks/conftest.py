"""One suite for the attacks of a module, and a workspace for each of them."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cove.client import Client
from cove.workspace import Workspace
from tests.support.repository import make_repository
from tests.support.suite import Suite, running_suite

_ALL_OUTPUT = {
    "COVE_EXECUTOR__RETENTION_EXECUTION": str(8 << 30),
    "COVE_EXECUTOR__RETENTION_ENVIRONMENT": str(16 << 30),
}
"""What a reader misses is then no output that went meanwhile because it was too much."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    async with running_suite(tmp_path_factory.mktemp("suite"), env=_ALL_OUTPUT) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def cove(suite: Suite) -> AsyncIterator[Client]:
    async with suite.client() as client:
        yield client


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    make_repository(tmp_path / "app", {"README.md": "hello\n", "src/main.py": "print(1)\n"})
    return tmp_path / "app"


@pytest_asyncio.fixture(loop_scope="module")
async def workspace(cove: Client, repository: Path) -> AsyncIterator[Workspace]:
    made = await new(cove, repository)
    yield made
    await made.delete(force=True, allow_missing=True)


@pytest_asyncio.fixture(loop_scope="module")
async def neighbour(cove: Client, repository: Path) -> AsyncIterator[Workspace]:
    """Another workspace of the same installation, which runs as the same uid outside."""
    made = await new(cove, repository)
    yield made
    await made.delete(force=True, allow_missing=True)


async def new(cove: Client, repository: Path) -> Workspace:
    return await cove.workspaces.create(
        repository=f"file://{repository}", id=f"attack-{secrets.token_hex(4)}"
    )
