"""What only a person at a terminal sees."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.support.suite import Suite

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def at_terminal(suite: Suite, *arguments: str, stream: str) -> tuple[str, str]:
    """Run `cove` with one stream on a terminal; returns what came there, and on the other."""
    ours, theirs = os.openpty()
    streams = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE, stream: theirs}
    try:
        process = await asyncio.create_subprocess_exec(
            *suite.command(*arguments),
            **streams,  # type: ignore[arg-type]
            env={**suite.env, "COVE_STATE": str(suite.state), "TERM": "xterm"},
        )
        async with asyncio.timeout(30):
            stdout, stderr = await process.communicate()
        assert process.returncode == 0, (stdout, stderr)
        return os.read(ours, 1 << 16).decode(), (stdout or stderr or b"").decode()
    finally:
        os.close(ours)
        os.close(theirs)


async def test_a_create_shows_how_far_it_is(suite: Suite, origin: Path) -> None:
    seen, output = await at_terminal(
        suite, "create", str(origin), "--id", "watched", stream="stderr"
    )
    assert "creating" in seen or "cloning" in seen
    assert output == "watched\n"
    await suite.cove("rm", "-f", "watched")


async def test_a_diff_has_colours(suite: Suite, fresh: str) -> None:
    await suite.cove("exec", fresh, "--script", r"printf '\033[2J' >> README.md")
    seen, _ = await at_terminal(suite, "diff", fresh, stream="stdout")
    assert "\x1b[32m+" in seen
    assert "\x1b[2J" not in seen


async def test_a_signal_ends_a_waiting_command(suite: Suite, demo: str) -> None:
    await suite.cove("exec", demo, "-d", "--id", "slow", "--", "sleep", "30")
    process = await asyncio.create_subprocess_exec(
        *suite.command("logs", "-f", demo, "slow"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**suite.env, "COVE_STATE": str(suite.state)},
    )
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await process.wait()
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):
        stdout, stderr = await process.communicate()
    assert (process.returncode, stdout, stderr) == (130, b"", b"")
    await suite.cove("kill", demo, "slow", "-s", "KILL")
