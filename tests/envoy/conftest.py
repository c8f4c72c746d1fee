"""One suite, two more gateways on it, and Envoy in front of those, for all that need no others."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from unittest import mock

import httpx
import pytest
import pytest_asyncio

from cove.client import Client
from tests.envoy.behind import Files, Gateway, gateways
from tests.envoy.edge import Edge, edge
from tests.support.repository import git, make_repository
from tests.support.suite import Suite, running_suite

SCOPE: Final = "package"
WAYS: Final = ("direct", "envoy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of it lives in one event loop, and so do the tests on it."""
    for item in items:
        if "/tests/envoy/" in str(item.path) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope=SCOPE), append=False)


@pytest.fixture(scope=SCOPE)
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("envoy"))


@pytest_asyncio.fixture(scope=SCOPE, loop_scope=SCOPE)
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    async with running_suite(tmp_path_factory.mktemp("suite")) as running:
        yield running


@pytest_asyncio.fixture(scope=SCOPE, loop_scope=SCOPE)
async def behind(suite: Suite, files: Files) -> AsyncIterator[list[Gateway]]:
    async with gateways(suite, files) as found:
        yield found


@pytest_asyncio.fixture(scope=SCOPE, loop_scope=SCOPE)
async def front(files: Files, behind: list[Gateway]) -> AsyncIterator[Edge]:
    async with edge(files, behind) as running:
        yield running


@pytest.fixture(scope=SCOPE, params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """The same test goes both ways."""
    found: str = request.param
    return found


@pytest_asyncio.fixture(loop_scope=SCOPE)
async def client(suite: Suite, front: Edge, way: str) -> AsyncIterator[Client]:
    async with client_of(suite, front if way == "envoy" else None) as found:
        yield found


@pytest_asyncio.fixture(loop_scope=SCOPE)
async def http(suite: Suite, front: Edge, way: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {suite.token}"}
    base = f"http://{suite.http}"
    found = (
        front.http(headers=headers, timeout=60)
        if way == "envoy"
        else httpx.AsyncClient(base_url=base, headers=headers, timeout=60, trust_env=False)
    )
    async with found:
        yield found


def client_of(suite: Suite, front: Edge | None = None) -> Client:
    """Of the SDK, with the token: directly, or through Envoy."""
    if front is None:
        return Client(suite.grpc, suite.token)
    given = {"COVE_CA_FILE": str(front.files.public.path)}
    with mock.patch.dict(os.environ, given):
        return Client(f"https://{front.address}", suite.token)


@pytest.fixture(scope=SCOPE)
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare repository with one commit, that can be pushed to."""
    folder = tmp_path_factory.mktemp("origin")
    make_repository(folder / "work")
    git(folder, "clone", "--quiet", "--bare", "work", "app.git")
    return folder / "app.git"
