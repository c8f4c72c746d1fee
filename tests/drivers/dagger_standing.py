"""The driver `dagger` for the conformance suite: on the doubled engine, and on a real one."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.drivers.dagger_double.process import DoubleEngine, executable
from tests.drivers.standing import Standing

HOST: Final = "_EXPERIMENTAL_DAGGER_RUNNER_HOST"
CLI: Final = "_EXPERIMENTAL_DAGGER_CLI_BIN"
IMAGE: Final = "COVE_TEST_DAGGER_IMAGE"
"""What workspaces stand on at a real engine; else one is pulled."""


@asynccontextmanager
async def dagger(tmp_path: Path) -> AsyncIterator[Standing]:
    """On the double: what it cannot prove is told where it is defined."""
    folder = tmp_path / "engine"
    engine = await asyncio.to_thread(DoubleEngine(folder).start)
    try:
        env = {
            "COVE_DAGGER__ENGINES": f"main={engine.address}",
            "COVE_DAGGER__IMAGE": "base",
            "COVE_PROVIDER__DAGGER_NETWORK": "none",
            CLI: str(executable(folder)),
        }
        yield Standing(name="dagger", env=env, left=_left)
    finally:
        engine.kill()


@asynccontextmanager
async def dagger_engine(tmp_path: Path) -> AsyncIterator[Standing]:
    """On the engine that the environment names."""
    cli = os.environ.get(CLI) or shutil.which("dagger")
    if HOST not in os.environ or not cli:
        pytest.skip(f"no real engine: {HOST} names none, or there is no Dagger CLI")
    image = os.environ.get(IMAGE, "docker.io/library/python:3.12-slim")
    env = {"COVE_DAGGER__ENGINES": f"main={os.environ[HOST]}", CLI: cli}
    yield Standing(
        name="dagger",
        env={**env, "COVE_DAGGER__IMAGE": image, "COVE_PROVIDER__DAGGER_NETWORK": "open"},
        left=_left,
    )


async def _left(state: Path) -> list[str]:
    """The engine itself keeps what its cache keeps: there is no way to have it forget one."""
    return sorted(each.name for each in (state / "dagger" / "environments").iterdir())
