"""A gateway that is far away, or slow to shake hands, is reached all the same."""

from cove.client import Client
from tests.sdk.double import Gateway
from tests.support.far import far

_AWAY = 1.5
"""Seconds until the first byte comes through; an attempt to connect may take longer than the pause
between two."""


async def test_a_connection_that_takes_long_is_made(address: str, gateway: Gateway) -> None:
    async with (
        far(address.removeprefix("unix:"), _AWAY) as there,
        Client(there, "secret", patience=30) as cove,
    ):
        assert (await cove.workspaces.get("demo")).id == "demo"
    assert len(gateway.requests) == 1
