"""What only a person at a terminal sees."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.cli.screen import Screen
from tests.support.suite import Suite

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def at_terminal(
    suite: Suite, *arguments: str, stream: str = "stdout", env: Mapping[str, str] | None = None
) -> tuple[str, str]:
    """Run `cove` with one stream on a terminal; returns what came there, and on the other."""
    async with started_at(suite, *arguments, stream=stream, env=env) as (process, screen):
        async with asyncio.timeout(30):
            stdout, stderr = await process.communicate()
        assert process.returncode == 0, (stdout, stderr)
        return (await screen.all()).decode(), (stdout or stderr or b"").decode()


@asynccontextmanager
async def started_at(
    suite: Suite, *arguments: str, stream: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Screen]]:
    """A `cove` with one stream on a terminal, and what is seen there."""
    ours, theirs = os.openpty()
    streams = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE, stream: theirs}
    screen = Screen(ours)
    process = await asyncio.create_subprocess_exec(
        *suite.command(*arguments),
        stdin=asyncio.subprocess.DEVNULL,
        **streams,  # type: ignore[arg-type]
        env={**suite.env, "COVE_STATE": str(suite.state), "TERM": "xterm", **(env or {})},
    )
    os.close(theirs)
    try:
        yield process, screen
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
        screen.close()


@asynccontextmanager
async def held_up(suite: Suite, service: str) -> AsyncIterator[Callable[[], None]]:
    """The service answers nobody until the block ends, or it is told to go on."""
    pid = await suite.up(service)
    go_on = partial(os.kill, pid, signal.SIGCONT)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield go_on
    finally:
        go_on()


@pytest.mark.parametrize(
    ("service", "arguments", "said"),
    [
        ("git", ["create", "ORIGIN", "--id", "slow-create"], b"creating"),
        ("git", ["push", "FRESH"], b"pushing"),
        ("git", ["rm", "--force", "FRESH"], b"removing"),
        ("executor", ["cp", "LOCAL", "FRESH:there"], b"copying"),
    ],
)
async def test_what_takes_a_while_says_that_it_goes_on(
    suite: Suite,
    fresh: str,
    origin: Path,
    tmp_path: Path,
    service: str,
    arguments: list[str],
    said: bytes,
) -> None:
    (tmp_path / "local").write_bytes(bytes(1 << 20))
    words = {"ORIGIN": str(origin), "LOCAL": str(tmp_path / "local")}
    arguments = [words.get(each, each.replace("FRESH", fresh)) for each in arguments]
    async with (
        held_up(suite, service) as go_on,
        started_at(suite, *arguments, stream="stderr") as (process, screen),
    ):
        await screen.sees(said)
        go_on()
        async with asyncio.timeout(30):
            await process.communicate()
        assert process.returncode == 0
    await suite.cove("rm", "-f", "--allow-missing", "slow-create")


async def test_a_diff_has_colours(suite: Suite, fresh: str) -> None:
    await suite.cove("exec", fresh, "--script", r"printf '\033[2J' >> README.md")
    seen, _ = await at_terminal(suite, "diff", fresh)
    assert "\x1b[32m+" in seen
    assert "\x1b[2J" not in seen
    plain, _ = await at_terminal(suite, "diff", fresh, env={"NO_COLOR": "1"})
    assert "\x1b" not in plain
    assert "+?[2J" in plain


async def test_a_signal_ends_a_waiting_command(suite: Suite, demo: str) -> None:
    await suite.cove("exec", demo, "-d", "--id", "slow", "--", "sh", "-c", "echo on; sleep 300")
    process = await asyncio.create_subprocess_exec(
        *suite.command("logs", "-f", demo, "slow"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**suite.env, "COVE_STATE": str(suite.state)},
    )
    assert process.stdout
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"on\n"
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(30):
        stdout, stderr = await process.communicate()
    assert (process.returncode, stdout, stderr) == (130, b"", b"")
    await suite.cove("kill", demo, "slow", "-s", "KILL")
