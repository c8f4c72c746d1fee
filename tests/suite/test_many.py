"""Very many workspaces at once, as a fleet of agents starts."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cove.client import Client
from cove.workspace import Workspace
from tests.suite.conftest import head_of
from tests.support.suite import Suite, running_suite

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.long]

AT_ONCE = 100
SAMPLE = 10


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    """Whose repositories are all of this test."""
    async with running_suite(tmp_path_factory.mktemp("suite")) as running:
        yield running


@pytest.mark.timeout(600)
async def test_a_hundred_workspaces_at_once_of_an_unknown_repository(
    suite: Suite, repository: Path
) -> None:
    head = head_of(repository, "main")
    async with suite.client(patience=300) as client:
        made = await asyncio.gather(
            *(client.workspaces.create(repository, id=f"many-{n}") for n in range(AT_ONCE))
        )
        try:
            stores = list((suite.state / "git" / "repositories").glob("*/*.git"))
            assert len(stores) == 1
            assert len(list(stores[0].glob("objects/pack/*.pack"))) <= 1
            for workspace in made:
                status = await workspace.status()
                assert (status.head_commit, status.total) == (head, 0)
            for workspace in made[:: AT_ONCE // SAMPLE]:
                seen = await workspace.execute("sh", "-c", "git rev-parse HEAD; cat README")
                assert seen.stdout.decode() == f"{head}\nhello\n"
        finally:
            await _remove(client, made)


async def _remove(client: Client, made: list[Workspace]) -> None:
    await asyncio.gather(*(workspace.delete(force=True) for workspace in made))
    assert [workspace async for workspace in client.workspaces.list()] == []
