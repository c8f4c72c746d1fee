"""What would make a service grow or wait: its memory stays bounded."""

import asyncio
from pathlib import Path

import pytest

from cove.executor.v1.executor_pb2 import Chunk
from cove.workspace import Workspace
from tests.support.suite import Suite

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.long]

SERVICES = ("registry", "git", "provider", "executor", "gateway")
MIB = 1 << 20


def peaks(suite: Suite) -> dict[str, int]:
    """The most memory that each service has had, in MiB."""
    found = {}
    for service in SERVICES:
        status = Path(f"/proc/{suite.pid(service)}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        found[service] = int(line.split()[1]) >> 10
    return found


def growth(before: dict[str, int], suite: Suite) -> dict[str, int]:
    return {name: most - before[name] for name, most in peaks(suite).items()}


async def test_readers_that_stop_reading_a_gibibyte_cost_little(
    suite: Suite, workspace: Workspace
) -> None:
    await workspace.execute("true")
    before = peaks(suite)
    execution = await workspace.start("sh", "-c", "head -c 1G /dev/zero")
    ended = await execution.wait()
    assert ended.exit.output_bytes == 1 << 30
    readers = [execution.output() for _ in range(8)]
    for reader in readers:
        await anext(reader)
    total = 0
    async for event in execution.output():  # While eight others stand still.
        total += len(event.data) if isinstance(event, Chunk) else 0
    assert total == 1 << 30
    for reader in readers:
        await reader.aclose()
    assert max(growth(before, suite).values()) < 128


async def test_a_hundred_thousand_tiny_writes_are_few_events(
    suite: Suite, workspace: Workspace
) -> None:
    await workspace.execute("true")
    before = peaks(suite)
    script = "import os\nfor i in range(100000): os.write(1 + i % 2, b'x')"
    execution = await workspace.start("python3", "-c", script)
    events = [event async for event in execution.output() if isinstance(event, Chunk)]
    assert sum(len(event.data) for event in events) == 100_000
    assert len(events) < 20_000
    assert max(growth(before, suite).values()) < 64


async def test_ten_thousand_new_files_are_told_within_bounds(
    suite: Suite, workspace: Workspace
) -> None:
    make = "for i in range(12000): open(f'{\"n\" * 200}{i}', 'w')"
    assert (await workspace.execute("python3", "-c", make)).exit_status == 0
    before = peaks(suite)
    status = await workspace.status()
    assert status.truncated
    assert len(status.entries) <= 10_000
    async with asyncio.timeout(60):
        assert len(await workspace.list(".")) >= 12_000
    assert max(growth(before, suite).values()) < 192
