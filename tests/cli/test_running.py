"""`cove exec logs ps wait kill`, against the real suite."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from tests.support.suite import Suite

pytestmark = pytest.mark.asyncio(loop_scope="package")

_COUNT = "i=0; while [ $i -lt 30 ]; do echo $i; i=$((i+1)); sleep 0.1; done"
_COUNTED = b"".join(b"%d\n" % number for number in range(30))


def until(name: str) -> str:
    """A command that ends when a file of this name is made."""
    return f"until [ -e {name} ]; do sleep 0.1; done; rm {name}"


async def started(suite: Suite, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *suite.command(*arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**suite.env, "COVE_STATE": str(suite.state)},
    )


async def read_line(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout
    async with asyncio.timeout(30):
        return await process.stdout.readline()


async def ended(process: asyncio.subprocess.Process) -> tuple[int, bytes, bytes]:
    try:
        async with asyncio.timeout(30):
            stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode is not None
    return process.returncode, stdout, stderr


async def test_output_comes_as_it_was_written(suite: Suite, demo: str) -> None:
    script = r"printf '\377\0\n'; printf 'bad\033\n' >&2; exit 3"
    done = await suite.cove("exec", demo, "--", "sh", "-c", script)
    assert (done.status, done.stdout, done.stderr) == (3, b"\xff\0\n", b"bad\x1b\n")


async def test_much_output_is_whole(suite: Suite, demo: str) -> None:
    done = await suite.cove("exec", demo, "--", "seq", "200000")
    assert done.stdout == b"".join(b"%d\n" % number for number in range(1, 200001))


async def test_output_comes_while_the_command_runs(suite: Suite, demo: str) -> None:
    process = await started(suite, "exec", demo, "--id", "live", "--", "sh", "-c", "echo a; cat x")
    assert await read_line(process) == b"a\n"
    await ended(process)
    process = await started(suite, "exec", demo, "--", "sh", "-c", "echo a; exec sleep 60")
    assert await read_line(process) == b"a\n"
    process.send_signal(signal.SIGINT)
    status, _, errors = await ended(process)
    assert status == 128 + signal.SIGINT
    assert b"SIGINT" in errors


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["--script", "echo $0"], "sh\n"),
        (["-e", "A=b c", "--", "sh", "-c", "echo $A"], "b c\n"),
        (["--cwd", "src", "--", "ls"], "main.py\n"),
        (["--merge-stderr", "--script", "echo a; echo b >&2; echo c"], "a\nb\nc\n"),
        (["--", "echo", "--timeout", "-x", "--"], "--timeout -x --\n"),
        (["echo", "plain"], "plain\n"),
        (["--timeout", "9", "echo", "after an option"], "after an option\n"),
        (["-w", "src", "ls", "-1", "--", "main.py"], "main.py\n"),
        (["--workdir=src", "-eA=1", "sh", "-c", "echo $A; pwd"], "1\n/workspace/src\n"),
        (["echo", "a", "--", "b", "-d", "--id"], "a -- b -d --id\n"),
        (["--merge-stderr", "sh", "-c", "echo $#", "--", "x"], "1\n"),
    ],
)
async def test_a_command_runs_as_told(
    suite: Suite, demo: str, arguments: list[str], output: str
) -> None:
    done = await suite.cove("exec", demo, *arguments)
    assert (done.status, done.text, done.errors) == (0, output, "")


async def test_options_may_stand_before_the_workspace(suite: Suite, demo: str) -> None:
    options = ["-w", "src", "-e", "A=b", "--timeout", "9"]
    done = await suite.cove("exec", *options, demo, "sh", "-c", 'echo $A "$@"', "-d", "--json")
    assert (done.status, done.text, done.errors) == (0, "b --json\n", "")
    dashed = await suite.cove("exec", "--", demo, "echo", "-n", "x")
    assert (dashed.status, dashed.text) == (0, "x")


@pytest.mark.parametrize("kind", ["pipe", "file"])
async def test_input_that_is_not_passed_on_is_told_and_not_read(
    suite: Suite, demo: str, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "input").write_text("one\ntwo\n")
    feed = "cat input |" if kind == "pipe" else ""
    source = "" if kind == "pipe" else "< input"
    script = f'{feed} {{ "$@"; echo "left: $(cat)"; }} {source}'
    process = await asyncio.create_subprocess_exec(
        *["sh", "-c", script, "sh", *suite.command("exec", demo, "cat")],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**suite.env, "COVE_STATE": str(suite.state)},
        cwd=tmp_path,
    )
    status, stdout, stderr = await ended(process)
    assert (status, stdout) == (0, b"left: one\ntwo\n")
    assert stderr.startswith(b"warning: the standard input is not passed on")
    assert stderr.count(b"\n") == 1


async def test_input_that_comes_late_is_told_at_the_end(suite: Suite, demo: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *suite.command("exec", demo, "sh", "-c", f"echo runs; {until('late')}"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**suite.env, "COVE_STATE": str(suite.state)},
    )
    assert await read_line(process) == b"runs\n"
    assert process.stdin
    process.stdin.write(b"late\n")
    await process.stdin.drain()
    await suite.cove("exec", demo, "touch", "late")
    assert process.stderr
    async with asyncio.timeout(30):
        assert (await process.stderr.read()).startswith(b"warning: the standard input")
        assert await process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--", "sh", "-c", "kill -9 $$"], 137, "SIGKILL"),
        (["--timeout", "0.3", "--", "sleep", "60"], 124, "timeout"),
        (["--", "no-such-program"], 127, "remedy: "),
        (["--", "/workspace/README.md"], 126, "remedy: "),
        (["--cwd", "none", "--", "true"], 1, "remedy: "),
        ([], 2, "error: no command to run"),
        (["--script", "true", "true"], 2, "error: a command and --script"),
        (["-e", "nonsense", "--", "true"], 2, "K=V"),
        (["--timeout", "soon", "--", "true"], 2, "not a time"),
        (["--timeout", "nan", "--", "true"], 2, "not a time"),
        (["--timeout", "inf", "--", "true"], 2, "not a time"),
        (["--no-such-option", "ls"], 2, "usage: cove exec [OPTION ...] WORKSPACE"),
        (["ls", "--no-such-option"], 2, "unrecognized option"),
        (["--", "echo", "\udcff"], 2, "not UTF-8"),
    ],
)
async def test_an_exit_status_says_what_happened(
    suite: Suite, demo: str, arguments: list[str], status: int, said: str
) -> None:
    done = await suite.cove("exec", demo, *arguments)
    assert done.status == status
    assert said in done.errors
    assert "Traceback" not in done.errors


async def test_a_command_is_left_running_and_found_again(suite: Suite, demo: str) -> None:
    left = await suite.cove(
        *("exec", demo, "--detach", "--id", "left"),
        *("--script", f"{_COUNT}; {until('seen')}; exit 4"),
    )
    assert left.text == "left\n"
    listed = await suite.cove("ps", demo)
    assert "left" in listed.text
    assert "running" in listed.text
    newest = await suite.cove("ps", demo, "--order-by", "create_time desc", "--json")
    assert json.loads(newest.text)["executions"][0]["name"].endswith("/left")
    await suite.cove("exec", demo, "touch", "seen")
    waited = await suite.cove("wait", demo, "left")
    assert waited.status == 4
    assert (await suite.cove("logs", demo, "left")).stdout == _COUNTED
    assert (await suite.cove("logs", demo, "left", "--tail", "6")).stdout == _COUNTED[-6:]
    assert (await suite.cove("logs", demo, "left", "--from", "4")).stdout == _COUNTED[4:]


async def test_the_second_interrupt_leaves_the_command_running(suite: Suite, demo: str) -> None:
    script = "trap 'echo caught' INT; echo ready; while :; do sleep 0.1; done"
    process = await started(suite, "exec", demo, "--id", "stubborn", "--script", script)
    assert await read_line(process) == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert await read_line(process) == b"caught\n"
    process.send_signal(signal.SIGINT)
    status, _, errors = await ended(process)
    assert status == 130
    assert b"cove logs -f demo stubborn" in errors
    killed = await suite.cove("kill", demo, "stubborn", "--signal", "kill", "--scope", "tree")
    assert killed.status == 0
    assert (await suite.cove("wait", demo, "stubborn")).status == 137


@pytest.mark.parametrize("service", ["gateway", "executor"])
async def test_output_is_whole_over_the_death_of_a_service(
    suite: Suite, demo: str, service: str
) -> None:
    process = await started(suite, "exec", demo, "--script", _COUNT)
    first = await read_line(process)
    await suite.kill(service)
    status, rest, errors = await ended(process)
    assert (status, first + rest) == (0, _COUNTED), errors


async def test_json_is_a_line_an_event(suite: Suite, demo: str) -> None:
    done = await suite.cove("exec", demo, "--json", "--", "echo", "hi")
    first, chunk, end = map(json.loads, done.text.splitlines())
    assert first["execution"]["spec"]["argv"] == ["echo", "hi"]
    assert chunk["chunk"]["data"] == "aGkK"
    assert end["exit"]["code"] == 0


async def test_a_reader_that_goes_away_is_no_failure(suite: Suite, demo: str) -> None:
    command = suite.command("exec", demo, "--", "seq", "1000000")
    process = await asyncio.create_subprocess_exec(
        *["sh", "-c", '"$@" | head -n 1', "sh", *command],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**suite.env, "COVE_STATE": str(suite.state)},
    )
    assert await ended(process) == (0, b"1\n", b"")


async def test_a_command_whose_output_nobody_reads_is_ended(suite: Suite, demo: str) -> None:
    command = suite.command("exec", demo, "--id", "unread", "--", "yes")
    process = await asyncio.create_subprocess_exec(
        *["sh", "-c", '{ "$@"; echo $? >&2; } | head -n 1', "sh", *command],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**suite.env, "COVE_STATE": str(suite.state)},
    )
    assert await ended(process) == (0, b"y\n", b"%d\n" % (128 + signal.SIGPIPE))
    assert (await suite.cove("wait", demo, "unread")).status == 128 + signal.SIGTERM


async def test_a_closed_output_is_no_failure(suite: Suite, demo: str) -> None:
    command = suite.command("exec", demo, "--", "sh", "-c", "echo a; exit 4")
    process = await asyncio.create_subprocess_exec(
        *["sh", "-c", '"$@" >&-', "sh", *command],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**suite.env, "COVE_STATE": str(suite.state)},
    )
    assert await ended(process) == (4, b"", b"")
