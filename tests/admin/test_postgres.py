"""A registry in PostgreSQL is filled from a backup, copied, looked at and mended as a file is."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cove_server.admin import backup, restore
from cove_server.admin.database import PostgresRegistry
from cove_server.admin.errors import Refused
from cove_server.check.look import Asked, look, mend
from cove_server.places import Places
from services.git.cell import Cells
from services.git.mending import HOMES
from services.provider.config import Config as ProviderConfig
from services.registry import copying
from services.registry.config import Config
from tests.admin.conftest import State, Worked
from tests.admin.test_backup import KILLED, tree_of
from tests.registry.postgres import Postgres, running

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running() as server:
        yield server


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.fresh()


def schema_of(url: str) -> str:
    return url.rpartition("search_path=")[2]


def registry(state: Path, url: str) -> PostgresRegistry:
    return PostgresRegistry(Config(state=state, runtime=state / "run", database=url))


def restored(source: Path, state: Path, runtime: Path, url: str) -> dict[str, object]:
    places = Places(state, runtime)
    return restore.restore(
        restore.Asked(source=source, places=places, registry=registry(state, url), replace=True)
    )


def test_a_backup_of_what_was_restored_into_it_is_as_the_first(
    short: Path, worked: Worked, tmp_path: Path, url: str
) -> None:
    done = restored(worked.backup, tmp_path / "state", short, url)
    assert not (tmp_path / "state" / "registry" / "registry.db").exists()
    assert (tmp_path / "state" / "registry" / "token").exists()
    asked = backup.Asked(
        state=tmp_path / "state",
        registry=registry(tmp_path / "state", url),
        target=tmp_path / "again.tar",
    )
    told = backup.backup(asked)
    assert (told["environments"], told["revision"]) == (3, done["revision"])
    assert [path.name for path in tmp_path.glob(".*")] == []
    state = State(tmp_path / "file", worked.uid, worked.own, worked.deleted)
    restore.restore(
        restore.Asked(
            source=tmp_path / "again.tar",
            places=Places(state.path, short),
            registry=state.registry,
        )
    )
    assert copying.marks(state.database).keys() == {worked.uid, worked.own, worked.deleted}
    upper = Path("git/worktrees") / worked.uid / "upper"
    assert tree_of(state.path / upper) == tree_of(worked.state / upper)


def test_a_database_with_something_in_it_is_refused_and_left_as_it_is(
    short: Path, worked: Worked, tmp_path: Path, postgres: Postgres, url: str
) -> None:
    restored(worked.backup, tmp_path / "first", short, url)
    postgres.sql(f"UPDATE {schema_of(url)}.counter SET latest = latest + 1")
    with pytest.raises(Refused, match="not empty") as refused:
        restored(worked.backup, tmp_path / "second", short, url)
    assert "empty database" in refused.value.remedy
    assert not (tmp_path / "second" / "git").exists()
    assert postgres.sql(f"SELECT count(*) FROM {schema_of(url)}.environment") == ["3"]


def test_a_restore_that_was_killed_when_the_database_was_full_is_gone_on_with(
    short: Path, worked: Worked, tmp_path: Path, postgres: Postgres, url: str
) -> None:
    argv = [sys.executable, "-B", "-P", "-c", KILLED, "0", "admin", "restore", str(worked.backup)]
    argv += ["--state", str(tmp_path / "state"), "--runtime", str(short)]
    env = {**os.environ, "COVE_REGISTRY__DATABASE": url}
    done = subprocess.run(argv, env=env, capture_output=True, timeout=60, check=False)
    assert done.returncode == 9, done.stderr
    assert postgres.sql(f"SELECT count(*) FROM {schema_of(url)}.environment") == ["3"]
    told = restored(worked.backup, tmp_path / "state", short, url)
    assert postgres.sql(f"SELECT latest FROM {schema_of(url)}.counter") == [str(told["revision"])]
    assert (tmp_path / "state" / "git" / "worktrees" / worked.uid / "upper" / "later").exists()


DAMAGES = {
    "registry-counter": "UPDATE {}.counter SET latest = 1, compacted = 1",
    "registry-history": "INSERT INTO {}.change VALUES (5, 1, 't', 'n', 'u', NULL, 0)",
    "registry-document": "UPDATE {}.environment SET state = 4 WHERE uid = '{uid}'",
    "registry-quota": "UPDATE {}.quota SET counted = counted + 3",
    "registry-token": r"INSERT INTO {}.token_hash VALUES ('\x00', 'default', 'none', 1)",
}


async def test_what_does_not_agree_is_named_and_mended(
    short: Path, worked: Worked, tmp_path: Path, postgres: Postgres, url: str
) -> None:

    await asyncio.to_thread(restored, worked.backup, tmp_path / "state", short, url)
    async with Cells([tmp_path / "state" / "git" / name for name in HOMES]) as cells:
        asked = Asked(
            places=Places(tmp_path / "state", short),
            registry=registry(tmp_path / "state", url),
            provider=ProviderConfig(state=tmp_path / "state", runtime=short),
            cells=cells,
        )
        assert await look(asked) == []
        for kind, damage in DAMAGES.items():
            postgres.sql(damage.format(schema_of(url), uid=worked.uid))
            assert kind in {each.kind for each in await look(asked)}
            mended = await mend(asked)
            assert all(each.done for each in mended)
            assert await look(asked) == []
        worktree = tmp_path / "state" / "git" / "worktrees" / worked.uid
        worktree.rename(tmp_path / "elsewhere")
        await mend(asked)
        (state,) = postgres.sql(
            f"SELECT state FROM {schema_of(url)}.environment WHERE uid = '{worked.uid}'"
        )
        assert state == "4"
