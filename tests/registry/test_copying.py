"""What is gone on from, after a database was copied back: nothing of the life before holds."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from services.registry import copying
from services.registry.app import registry
from services.registry.config import Config
from tests.registry.caller import Caller, refused

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
