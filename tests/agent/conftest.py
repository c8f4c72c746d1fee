"""A node for each way to make sandboxes."""

import os
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


_OF_ROOT = (
    *("test_following", "test_freezing", "test_overlay", "test_execution", "test_fuzz"),
    "test_exhausted",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What has less to do with who it is runs as root alone, where it can, in `make test`."""
    for item in items:
        if os.geteuid() == 0 and item.path.stem in _OF_ROOT and "user]" in item.name:
            item.add_marker(pytest.mark.long)
