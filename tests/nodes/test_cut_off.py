"""A gateway that hears of no node has lost its way to them, more likely than they are all gone."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config
from gateway.nodes import Nodes
from gateway.reach import Reach


async def test_a_gateway_that_never_heard_of_any_node_takes_none_for_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when DNS is away, or its own network, as it starts: others may reach them all."""
    monkeypatch.setattr("gateway.nodes._EVERY", 0.01)
    tools: dict[str, Any] = {
        tool: f"unix:{tmp_path}/{{node}}/{tool}" for tool in ("git", "provider", "executor")
    }
    config = Config(state=tmp_path, runtime=tmp_path, nodes=("dns:..",), no_auth=True, **tools)
    async with Nodes.open(config, Reach(config)) as nodes, asyncio.timeout(60):
        while nodes.rounds < 20:  # noqa: ASYNC110 - they are counted, not the clock.
            await asyncio.sleep(0.01)
        assert nodes.silent("north")
        assert not nodes.gone("north")
