"""HTTP in front of the stand-in gateway."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from gateway.rest.app import RestConfig, rest
from servicekit.server import serving
from tests.rest.stand_in import TOKEN, Bearer, Config, Files, Seen, services


@dataclass
class Front:
    """HTTP that is up, with a client that has the token."""

    address: str
    target: str
    client: httpx.AsyncClient
    seen: Seen
    files: Files
    stack: AsyncExitStack
    """Closing it stops HTTP, not the gateway."""


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    seen = Seen()
    files = Files(seen)  # type: ignore[abstract]  # As in `services`.
    server = Config(state=tmp_path / "s", runtime=tmp_path / "r")
    async with (
        serving(server, services(seen, files), authenticator=Bearer()) as served,
        AsyncExitStack() as stack,
    ):
        config = RestConfig(target=served.address)
        address = await stack.enter_async_context(rest(config, Bearer()))
        async with httpx.AsyncClient(
            base_url=f"http://{address}",
            headers={"authorization": f"Bearer {TOKEN}"},
            timeout=30,
        ) as client:
            yield Front(address, served.address, client, seen, files, stack)
