"""The registry on a socket of its own, on each of its stores."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from services.registry.app import registry
from services.registry.config import Config
from tests.registry.caller import Caller, Clock
from tests.registry.postgres import Postgres, running
from tests.registry.proxy import Proxy, proxy


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Of this worker, for tests that end no server and trust no disk."""
    with running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where nobody has written yet: a path, or a URL of PostgreSQL."""
    if request.param == "sqlite":
        return str(tmp_path / "s" / "registry" / "registry.db")
    server: Postgres = request.getfixturevalue("postgres")
    return server.fresh()


@pytest.fixture
def url(postgres: Postgres) -> str:
    """Where nobody has written yet."""
    return postgres.fresh()


@pytest.fixture
async def between(postgres: Postgres) -> AsyncIterator[tuple[Proxy, Path]]:
    """A proxy to it, and the folder of its socket."""
    with tempfile.TemporaryDirectory(prefix="cove-pg-") as folder:  # The path is a short one.
        async with proxy(postgres.folder, Path(folder)) as made:
            yield made, Path(folder)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def config(tmp_path: Path, database: str) -> Config:
    return Config(
        database=database,
        state=tmp_path / "s",
        runtime=tmp_path / "r",
        heartbeat=timedelta(seconds=0.1),
        shutdown_grace=timedelta(seconds=1),
    )


@pytest.fixture
async def channel(config: Config, clock: Clock) -> AsyncIterator[grpc.aio.Channel]:
    async with (
        registry(config, now=clock) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        yield channel


@pytest.fixture
def ada(channel: grpc.aio.Channel) -> Caller:
    return Caller(channel)
