"""The suite, for each test a new one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.stage import Gateway, Stage, staged


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
async def gateway(stage: Stage) -> AsyncIterator[Gateway]:
    async with stage.gateway() as gateway:
        yield gateway
