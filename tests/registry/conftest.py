"""The registry on a socket of its own."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from services.registry.app import registry
from services.registry.config import Config
from tests.registry.caller import Caller, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
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
