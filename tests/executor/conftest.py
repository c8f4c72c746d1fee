"""One launcher for all tests of the executor; each test has its own sandboxes."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.executor.node import Caller, Node, Sandbox, running_node


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    folder = Path(tempfile.mkdtemp(prefix="cx", dir="/tmp"))
    state, runtime = folder / "s", folder / "r"
    state.mkdir(mode=0o700)
    runtime.mkdir(mode=0o700)
    try:
        with running_node(state, runtime) as running:
            yield running
    finally:
        shutil.rmtree(folder)


@pytest.fixture
async def box(node: Node) -> AsyncIterator[Sandbox]:
    async with node.sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def caller(node: Node) -> AsyncIterator[Caller]:
    async with node.executor() as client:
        yield client
