"""One real suite for all tests of the command line."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

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
async def demo(suite: Suite, origin: Path) -> str:
    """The id of a workspace that tests may run commands in, but not commit."""
    created = await suite.cove("create", str(origin), "--id", "demo")
    assert created.status == 0, created.errors
    return created.text.strip()


@pytest_asyncio.fixture(loop_scope="package")
async def fresh(suite: Suite, origin: Path) -> AsyncIterator[str]:
    """The id of a workspace of one test."""
    created = await suite.cove("create", str(origin))
    assert created.status == 0, created.errors
    name = created.text.strip()
    yield name
    await suite.cove("rm", "--force", "--allow-missing", name)
