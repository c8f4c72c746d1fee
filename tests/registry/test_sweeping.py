"""What is kept no longer goes, whatever happened before."""

import asyncio

import grpc
import pytest

from services.registry import app
from services.registry.app import registry
from services.registry.config import Config
from tests.registry.caller import Clock
from tests.registry.test_audit import DAY, Log
from tests.registry.test_migrations import run


async def test_a_failure_that_nobody_thought_of_does_not_end_the_sweeping(
    config: Config, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app, "_SWEEP_EVERY", 0.01)
    async with (
        asyncio.timeout(60),
        registry(config, now=clock) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        log = Log(channel, clock)
        await log.append(log.entry())
        await run(config.database, ["ALTER TABLE audit_swept RENAME TO away", "SELECT 1"])
        clock.move(91 * DAY)
        while "cannot sweep" not in caplog.text:  # noqa: ASYNC110 - it tells nobody else.
            await asyncio.sleep(0.01)
        await run(config.database, ["ALTER TABLE away RENAME TO audit_swept", "SELECT 1"])
        while (await log.page()).removed == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
