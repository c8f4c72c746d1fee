"""What is gone on from, after a database was copied back: nothing of the life before holds."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from services.registry import copying
from services.registry.app import registry
from services.registry.config import Config
from services.registry.postgres import database as database_module
from services.registry.postgres.copying import copy
from services.registry.postgres.store import PostgresStore
from tests.registry.caller import Caller, refused
from tests.registry.postgres import Postgres
from tests.registry.test_store import key, put

LATER = 10**15


@pytest.fixture
def database(tmp_path: Path) -> str:
    """A file only: a copy of either store is one."""
    return str(tmp_path / "s" / "registry" / "registry.db")


@asynccontextmanager
async def serving(config: Config) -> AsyncIterator[Caller]:
    async with (
        registry(config) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        yield Caller(channel)


async def test_a_claim_that_comes_again_after_a_restore_is_a_new_one(config: Config) -> None:
    """The answer of before has a token that is void."""
    again = str(uuid.uuid4())
    async with serving(config) as ada:
        made = await ada.register("demo", request_id=again)
        await ada.release("demo", made.fencing_token)
        before = await ada.claim("demo", request_id=again)
    copying.renew(config.database_path, LATER)
    async with serving(config) as ada:
        claimed = await ada.claim("demo", request_id=again)
        assert claimed.fencing_token > LATER
        with refused(grpc.StatusCode.ABORTED, "LEASE_LOST"):
            await ada.renew("demo", before.fencing_token)
        assert (await ada.renew("demo", claimed.fencing_token)).uid == made.uid
        assert (await ada.register("demo", request_id=again)).uid == made.uid  # That one is done.


async def test_a_copy_may_take_its_time_between_two_reads(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is slow to take them holds up nobody: it has no lock."""
    url = postgres.fresh()
    async with PostgresStore.open(url) as store:
        large = bytes(8192)
        await asyncio.gather(*(store.write(key(n), put(key(n), large)) for n in range(600)))
    short = {"idle_in_transaction_session_timeout": "1ms"}
    monkeypatch.setattr(database_module, "_SETTINGS", short)
    await copy(url, tmp_path / "copy.db")
    assert copying.describe(tmp_path / "copy.db").environments == 600
