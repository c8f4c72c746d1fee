"""Two suites for all provocations: an ordinary one, and one that is at its limits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.errors.world import World, opened, people
from tests.gateway.stage import staged
from tests.git.http_remote import serving
from tests.support.repository import git

SESSION: Final = "session"
TIGHT: Final[dict[str, dict[str, Any]]] = {
    "executor": {"disk_limit": 1e-9},
    "git": {"max_repository_bytes": 1},
    "registry": {"history_revisions": 1},
}

HASTY: Final = {"operation_limit": timedelta(seconds=2), "lease": timedelta(seconds=2)}
"""Of the gateway there."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The suites live in one event loop, and so do the tests on them."""
    for item in items:
        if "/tests/errors/" in str(item.path) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope=SESSION), append=False)


class _Rude(asyncio.Protocol):
    """Serves nobody."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        transport.close()


@pytest_asyncio.fixture(scope=SESSION, loop_scope=SESSION)
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("errors")
    async with AsyncExitStack() as stack:
        rude = await asyncio.get_running_loop().create_server(_Rude, "127.0.0.1")
        stack.callback(rude.close)
        silent = f"127.0.0.1:{rude.sockets[0].getsockname()[1]}"
        served = stack.enter_context(serving(_served(folder)))
        remote = f"127.0.0.1:{served.port}"
        reached = {"http_hosts": (silent, remote), "allowed_hosts": (silent, remote)}
        worlds = []
        for name, settings in (("ordinary", {"git": reached}), ("tight", TIGHT)):
            (own := folder / name).mkdir()
            stage = await stack.enter_async_context(staged(own, settings=settings))
            hasty = HASTY if name == "tight" else {}
            doors = await stack.enter_async_context(opened(stage, "main", **hasty))
            worlds.append(World(stage=stage, folder=own, doors=doors))
        ordinary, ordinary.tight = worlds[0], worlds[1]
        ordinary.remote = f"http://{remote}/app.git"
        ordinary.silent = f"http://{silent}/app.git"
        await people(ordinary)
        yield ordinary


def _served(folder: Path) -> Path:
    """A folder with a repository, to be served."""
    root = folder / "served"
    root.mkdir()
    git(root, "init", "-q", "--bare", "app.git")
    return root
