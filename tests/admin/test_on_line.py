"""Backups of a suite that is worked in, of either store, restored into either."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from cove.gateway.v1.gateway_pb2 import Workspace
from tests.admin.load import Told, check, under_load
from tests.registry.postgres import Postgres, running
from tests.support.repository import make_repository
from tests.support.suite import Done, Suite, running_suite

pytestmark = pytest.mark.timeout(300)
_SETTLED = (Workspace.STATE_READY, Workspace.STATE_SUSPENDED, Workspace.STATE_DELETED)


_DATABASE: Final = "COVE_REGISTRY__DATABASE"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running() as server:
        yield server


def variables(database: str) -> dict[str, str]:
    return {_DATABASE: database} if database else {}


@asynccontextmanager
async def suite_of(folder: Path, database: str) -> AsyncIterator[Suite]:
    folder.mkdir(exist_ok=True)
    async with running_suite(folder, env=variables(database)) as suite:
        yield suite


async def admin(suite: Suite, database: str, *arguments: str, state: Path | None = None) -> Done:
    """`cove admin`, for a state directory on which nothing runs unless it is that of the suite."""
    where = ("--state", str(state or suite.state), "--runtime", str(suite.runtime))
    before = suite.env
    others = {name: value for name, value in before.items() if name != _DATABASE}
    suite.env = others | variables(database)
    try:
        return await suite.cove("admin", *arguments, *where, "--json")
    finally:
        suite.env = before


@pytest.mark.long
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("postgres", "postgres"),
        ("sqlite", "sqlite"),
        ("sqlite", "postgres"),
        ("postgres", "sqlite"),
    ],
)
async def test_all_that_was_told_before_a_backup_is_in_it_and_nothing_by_half(
    source: str, target: str, tmp_path: Path, postgres: Postgres
) -> None:
    make_repository(tmp_path / "app")
    backup = tmp_path / "backup.tar"
    old, new = (postgres.fresh() if each == "postgres" else "" for each in (source, target))
    async with suite_of(tmp_path / "old", old) as suite:
        async with under_load(suite, tmp_path / "app") as journal:
            await journal.until(made=4, gone=1)
            told, gone = dict(journal.made), set(journal.gone)
            done = await admin(suite, old, "backup", str(backup))
            assert done.status == 0, done.errors
            leaving = set(journal.leaving)
            await journal.until(made=len(journal.made) + 1, gone=0)
        assert json.loads(done.text)["left_out"] == 0
        refused = await admin(suite, old, "check", "--repair")
        assert refused.status == 2
        assert "cove up" in refused.errors
        checked = await admin(suite, old, "check")
        assert json.loads(checked.text) == {"findings": []}
        state = tmp_path / "new" / "state"
        state.parent.mkdir()
        assert await suite.stop() == 0
        restored = await admin(suite, new, "restore", str(backup), state=state)
        assert restored.status == 0, restored.errors
    await has_all(tmp_path / "new", new, told, gone, leaving)


async def has_all(
    folder: Path, database: str, told: dict[str, Told], gone: set[str], leaving: set[str]
) -> None:
    async with suite_of(folder, database) as suite:
        async with suite.client() as cove:
            async with asyncio.timeout(90):
                while any(  # noqa: ASYNC110 - of other processes.
                    [each.message.state not in _SETTLED async for each in cove.workspaces.list()]
                ):
                    await asyncio.sleep(0.2)
            there = {each.id async for each in cove.workspaces.list()}
            assert told.keys() - leaving <= there
            assert not there & gone
            for key in told.keys() - leaving:
                await check(cove, told[key])
        checked = await admin(suite, database, "check")
        assert json.loads(checked.text) == {"findings": []}
        assert await suite.stop() == 0
        checked = await admin(suite, database, "check", "--deep", "--repair")
        assert json.loads(checked.text) == {"findings": []}
