"""`cove top`, against the real suite."""

import asyncio
import json
import os
import pty
import signal

import pytest

from tests.support.suite import Suite

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def busy(suite: Suite, workspace: str) -> str:
    """A command that needs a processor until it is killed."""
    started = await suite.cove(
        "exec", "--detach", workspace, "--", "sh", "-c", "while :; do :; done"
    )
    assert started.status == 0, started.errors
    return started.text.strip()


async def test_what_runs_is_first_and_told_with_what_it_uses(
    suite: Suite, demo: str, fresh: str
) -> None:
    execution = await busy(suite, fresh)
    async with asyncio.timeout(60):
        while True:
            done = await suite.cove("top", "--once", "--json")
            assert done.status == 0, done.errors
            told = json.loads(done.text)
            first = told["workspaces"][0]
            if first["name"] == f"workspaces/{fresh}" and "processors" in first:
                break  # Else it was not measured twice in the few seconds of a look.
    assert first["running"]
    assert first["executions"] == [execution]
    assert first["processors"] > 0
    assert int(first["usage"]["memoryBytes"]) > 0
    assert f"workspaces/{demo}" in {each["name"] for each in told["workspaces"]}
    assert int(told["quota"]["use"]["workspaces"]) >= 2
    assert told["unseen"] == 0
    table: list[str] = []
    async with asyncio.timeout(60):
        while not (table and table[4].split()[0] == fresh):
            table = (await suite.cove("top", "--once")).text.splitlines()
    assert "workspaces" in table[0]
    assert table[3].split()[0] == "ID"
    assert table[4].rstrip().endswith("sh -c while :; do :; done")


@pytest.mark.parametrize("interval", ["0.5", "2m", "x"])
async def test_an_interval_that_cannot_be_is_refused(suite: Suite, interval: str) -> None:
    done = await suite.cove("top", "--once", "--interval", interval)
    assert done.status == 2
    assert "--interval" in done.errors


async def test_it_goes_on_until_it_is_told_to_stop(suite: Suite, demo: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *suite.command("top", "--json", "-i", "1s"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**suite.env, "COVE_STATE": str(suite.state)},
        limit=1 << 20,
    )
    assert process.stdout
    async with asyncio.timeout(30):
        looks = [json.loads(await process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
    assert looks[0]["time"] < looks[1]["time"]


async def test_a_terminal_is_left_as_it_was(suite: Suite, demo: str) -> None:
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *suite.command("top"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**suite.env, "COVE_STATE": str(suite.state), "TERM": "xterm"},
    )
    os.close(theirs)
    seen = b""
    try:
        async with asyncio.timeout(30):
            while demo.encode() not in seen:
                seen += await asyncio.to_thread(os.read, ours, 65536)
            process.send_signal(signal.SIGINT)
            while b"\x1b[?1049l" not in seen:  # The other screen is left.
                seen += await asyncio.to_thread(os.read, ours, 65536)
            assert await process.wait() == 130
    finally:
        os.close(ours)
    assert b"\x1b[?1049h" in seen
