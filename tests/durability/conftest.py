"""One suite for the tests of a module, with a client that is patient, and two workspaces."""

from collections.abc import AsyncIterator

import pytest_asyncio

from cove.client import Client
from tests.attacks.conftest import neighbour as neighbour
from tests.attacks.conftest import repository as repository
from tests.attacks.conftest import suite as suite
from tests.attacks.conftest import workspace as workspace
from tests.executor.conftest import node as node
from tests.support.suite import Suite


@pytest_asyncio.fixture(loop_scope="module")
async def cove(suite: Suite) -> AsyncIterator[Client]:
    async with suite.client(patience=60) as client:
        yield client
