"""The driver docker, for the conformance suite."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from tests.docker.engine import bench, engine
from tests.docker.images import BARE, DEBIAN, bring_debian
from tests.docker.stage import Docker
from tests.drivers.standing import Standing


@asynccontextmanager
async def docker(tmp_path: Path) -> AsyncIterator[Standing]:
    """In whose image there is busybox, and nothing else."""
    with bench() as folder, engine(folder) as address:
        yield _standing(address, BARE)


@asynccontextmanager
async def docker_debian(tmp_path: Path) -> AsyncIterator[Standing]:
    """In whose image there is a Debian, with a Python of its own."""
    with bench() as folder, engine(folder) as address:
        bring_debian(address, folder / "debian")
        yield _standing(address, DEBIAN)


def _standing(address: str, image: str) -> Standing:
    engine = Docker(Path(address.removeprefix("unix://")))
    return Standing(
        name="docker",
        env={"COVE_PROVIDER__DOCKER_SOCKET": str(engine.socket)},
        spec={"image": image},
        left=partial(_left, engine),
    )


async def _left(engine: Docker, state: Path) -> list[str]:
    return sorted(engine.names())
