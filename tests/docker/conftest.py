"""One engine for all tests of the driver; where none can be started they say why."""

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.compose.daemon import daemon
from tests.compose.machine import Cannot, require_root
from tests.docker.images import BARE, bring, bring_debian, make_bare
from tests.docker.stage import Docker, Place, Stage, place, serving

ALONE = ("--bridge", "none", "--iptables=false", "--ip6tables=false")
"""It changes nothing of this machine's network."""


@pytest.fixture(scope="session")
def bench() -> Iterator[Path]:
    """A folder with a short path, as there are sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="ce", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def docker(bench: Path) -> Iterator[Docker]:
    """An engine with the image BARE."""
    with contextlib.ExitStack() as stack:
        try:
            require_root("dockerd", "docker", "tar")
            bare = make_bare(bench / "bare")
            address = stack.enter_context(daemon(bench / "d", *ALONE))
        except Cannot as error:
            pytest.skip(f"no engine of containers: {error}")
        bring(address, bare, BARE)
        yield Docker(Path(address.removeprefix("unix://")))


@pytest.fixture(scope="session")
def debian(docker: Docker, bench: Path) -> str:
    """The digest of the image DEBIAN."""
    try:
        return bring_debian(docker.address, bench / "debian")
    except Cannot as error:
        pytest.skip(f"no Debian: {error}")


@pytest.fixture(scope="module")
def where(docker: Docker) -> Iterator[Place]:
    with place(docker) as made:
        yield made
        assert docker.names() == set()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(where: Place) -> AsyncIterator[Stage]:
    """A provider and an executor; whatever a module made is released at its end."""
    async with serving(where) as made:
        yield made
        listed = await made.stub.ListProvisioned(made.everything())
        for each in listed.observations:
            await made.stub.ReleaseEnvironment(made.releasing(each.uid))
