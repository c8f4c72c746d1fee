"""`cove watch`, against the real suite."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.screen import Screen
from tests.support.suite import Suite

pytestmark = pytest.mark.asyncio(loop_scope="package")


@asynccontextmanager
async def watching(suite: Suite, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *suite.command("watch", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**suite.env, "COVE_STATE": str(suite.state)},
        limit=1 << 22,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def lines_until(process: asyncio.subprocess.Process, last: str) -> list[str]:
    """The lines up to one that contains the text."""
    assert process.stdout
    lines: list[str] = []
    async with asyncio.timeout(30):
        while not lines or last not in lines[-1]:
            line = (await process.stdout.readline()).decode()
            assert line, "the watch ended"
            lines.append(line.rstrip("\n"))
    return lines


async def test_each_change_that_can_be_seen_is_a_line(
    suite: Suite, demo: str, origin: Path
) -> None:
    async with watching(suite) as process:
        first = await lines_until(process, f"{demo} ready cove/{demo}")
        assert len(set(first)) == len(first)
        await suite.cove("create", str(origin), "--id", "seen")
        made = await lines_until(process, "seen ready")
        assert all(line.startswith("seen pending") for line in made[:-1])
        assert made[-1].startswith("seen ready cove/seen ")
        await suite.cove("exec", "seen", "--script", "echo 1 > unsaved")
        await suite.cove("rm", "seen")
        await lines_until(process, "seen deleted")
        await suite.cove("rm", "--force", "seen")
        await lines_until(process, "seen removed")
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            stdout, stderr = await process.communicate()
        assert (process.returncode, stdout, stderr) == (130, b"", b"")


async def test_json_has_every_write_and_can_be_resumed(suite: Suite, fresh: str) -> None:
    async with watching(suite, "--json") as process:
        told = [json.loads(line) for line in await lines_until(process, "snapshotEnd")]
        names = [each["put"]["workspace"]["name"] for each in told[:-1]]
        assert f"workspaces/{fresh}" in names
        revision = told[-1]["snapshotEnd"]["revision"]
        await suite.cove("rm", "--force", fresh)
        rest = [json.loads(line) for line in await lines_until(process, '"delete"')]
    assert rest[-1]["delete"]["name"] == f"workspaces/{fresh}"
    revisions = [int(next(iter(each.values()))["revision"]) for each in rest]
    assert revisions == sorted(set(revisions))
    async with watching(suite, "--json", "--from", revision) as process:
        again = [json.loads(line) for line in await lines_until(process, '"delete"')]
    assert again == rest


async def test_a_gateway_that_dies_is_not_noticed(suite: Suite, demo: str, origin: Path) -> None:
    async with watching(suite) as process:
        await lines_until(process, f"{demo} ready")
        await suite.kill("gateway")
        await suite.cove("create", str(origin), "--id", "later")
        assert (await lines_until(process, "later ready"))[0].startswith("later ")
        await suite.cove("rm", "--force", "later")


@pytest.mark.parametrize("colours", [True, False])
async def test_at_a_terminal_it_is_a_table(suite: Suite, demo: str, colours: bool) -> None:
    ours, theirs = os.openpty()
    screen = Screen(ours)
    plain: dict[str, Any] = {} if colours else {"NO_COLOR": "1"}
    process = await asyncio.create_subprocess_exec(
        *suite.command("watch"),
        stdout=theirs,
        env={**suite.env, "COVE_STATE": str(suite.state), "TERM": "xterm", **plain},
    )
    os.close(theirs)
    try:
        await screen.sees(b"cove/demo")
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            assert await process.wait() == 130
        seen = await screen.all()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        screen.close()
    assert b"BRANCH" in seen
    assert (b"\x1b[32mready" in seen) == colours
