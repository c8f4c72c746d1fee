"""A node and a proxy for each way to make sandboxes; sandboxes are shared by a file."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.agent import node as nodes
from tests.egress.world import Proxy


@pytest.fixture(scope="module", params=["root", "user"])
def node(request: pytest.FixtureRequest) -> Iterator[nodes.Node]:
    yield from nodes.make(request.param)


@pytest.fixture(scope="module")
def proxy(node: nodes.Node) -> Iterator[Proxy]:
    proxy = Proxy(node)
    proxy.start()
    yield proxy
    proxy.kill()


@pytest.fixture
async def box(node: nodes.Node, proxy: Proxy) -> AsyncIterator[nodes.Box]:
    async with node.sandbox() as box:
        yield box


_AS_BOTH = ("test_programs_reach", "test_runs_without_rights", "test_what_is_no_listener")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What has less to do with who it is runs as root alone, where it can, in `make test`."""
    for item in items:
        if os.geteuid() == 0 and "user]" in item.name and not item.name.startswith(_AS_BOTH):
            item.add_marker(pytest.mark.long)
