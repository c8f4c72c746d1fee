"""A node for each way to make sandboxes."""

from collections.abc import Iterator

import pytest

from tests.agent import node as nodes


@pytest.fixture(scope="session", params=["root", "user"])
def node(request: pytest.FixtureRequest) -> Iterator[nodes.Node]:
    """Shared by all tests of a mode; its sandboxes are not."""
    yield from nodes.make(request.param)


@pytest.fixture(params=["root", "user"])
def own_node(request: pytest.FixtureRequest) -> Iterator[nodes.Node]:
    """For tests that kill or restart the launcher."""
    yield from nodes.make(request.param)
