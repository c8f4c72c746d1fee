"""A gateway that is there is waited for, also when its first answers are lost."""

from pathlib import Path

import pytest

from cove import connection, status
from cove.client import Client
from tests.interop.proxies import Filter, Losing
from tests.support.suite import running_suite


class Stubborn(Losing):
    """Loses the first answer of each of the first four connections."""

    def filter(self) -> Filter | None:
        return self.loser() if self.connections <= 4 else None


async def test_a_connection_that_broke_was_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_FIRST_PATIENCE", 0.0)
    async with (
        running_suite(tmp_path) as suite,
        Stubborn(suite.grpc).serving() as network,
        Client(network.address, suite.token, patience=60) as cove,
    ):
        with pytest.raises(status.NotFound):
            await cove.workspaces.get("none")
        assert network.cuts == 4
