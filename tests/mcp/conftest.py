"""One real suite for all tests of `cove mcp`, and an agent that talks to it."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.mcp.agent import Agent, over_stdio
from tests.support.repository import make_repository
from tests.support.suite import Suite, running_suite


@pytest.fixture(scope="package")
def base() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="cv-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def suite(base: Path) -> AsyncIterator[Suite]:
    async with running_suite(base) as running:
        yield running


@pytest.fixture(scope="package")
def origin(base: Path) -> Path:
    folder = base / "origin"
    make_repository(folder)
    return folder


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def agent(suite: Suite) -> AsyncIterator[Agent]:
    """Over the standard streams of a real `cove mcp`."""
    async with over_stdio(suite) as connected:
        yield connected


@pytest_asyncio.fixture(loop_scope="package")
async def fresh(agent: Agent, origin: Path) -> AsyncIterator[str]:
    """The id of a workspace of one test."""
    made = await agent.data("create", repository=str(origin))
    yield made["id"]
    await agent("delete", workspace=made["id"], force=True)
