"""A client, and a gateway that fails as told."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cove.client import Client
from tests.sdk.double import Gateway, made, serving


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/s"


@pytest.fixture
async def gateway(address: str) -> AsyncIterator[Gateway]:
    double = made()
    async with serving(double, address):
        yield double


@pytest.fixture
async def cove(address: str, gateway: Gateway) -> AsyncIterator[Client]:
    async with Client(address, "secret") as client:
        yield client
