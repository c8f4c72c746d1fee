"""A stand-in answers as an agent does, whatever runs the commands."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import PROTOCOL_VERSION, formats, frames, protocol
from agent.client import (
    AgentClient,
    AgentError,
    Command,
    CommandLimits,
    ErrorCode,
    PeerGone,
    Scope,
    Sinks,
    Terminal,
)
from agent.record import BLANK_RESULT, ExitKind, Kind, LogReader, Result
from agent.standin.client import StandinClient
from agent.standin.runner import Asked, Ending, Output, Refused
from agent.standin.server import Server
from tests.agent.node import until

UID = "aaaaaaaaaaaaaaaa"


class _Runner:
    """Runs commands as processes of the test."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.touches = 0

    async def check(self, uid: str, asked: Asked) -> None:
        if asked.argv[0] == "none":
            raise Refused(frames.PROGRAM_NOT_FOUND, "no such program")

    async def run(self, uid: str, asked: Asked, output: Output) -> Ending:
        self.ran.append(asked.key)
        output.begin()
        output.preview(formats.STDOUT, b"seen")
        process = await asyncio.create_subprocess_exec(
            *asked.argv, env=dict(asked.env), stdout=asyncio.subprocess.PIPE
        )
        try:
            out, _ = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.communicate()
            raise
        output.write(formats.STDOUT, out)
        assert process.returncode is not None
        return Ending(number=process.returncode)

    async def signal(self, uid: str, key: str, number: int, scope: int) -> None:
        raise Refused(frames.CANNOT, "signals")

    async def handle(self, uid: str, handle: bytes) -> bytes:
        if handle not in (b"", b"now"):
            raise Refused(frames.HANDLE_STALE, "7")
        return b"now"

    def touched(self, uid: str) -> None:
        self.touches += 1


class _Bench:
    def __init__(self, folder: Path, runner: _Runner) -> None:
        self.folder = folder
        self.runner = runner

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[AgentClient]:
        async with AgentClient.connect(self.folder / "a" / UID, os.getuid()) as client:
            yield client

    async def ask(self, verb: str, uid: str = "", **more: Any) -> dict[str, object]:
        async with StandinClient.connect(self.folder / "double") as client:
            return await client.ask(verb, uid=uid, **more)

    def sinks(self, name: str) -> tuple[Sinks, Path]:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "result").write_bytes(BLANK_RESULT)
        log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        return Sinks(log=log, result=os.open(folder / "result", os.O_WRONLY)), folder

    async def start(self, key: str, *argv: str, **more: object) -> Path:
        sinks, folder = self.sinks(key)
        try:
            async with self.agent() as client:
                command = Command(argv=argv, env=dict(os.environ), **more)  # type: ignore[arg-type]
                await client.start(key, command, sinks)
        finally:
            os.close(sinks.log)
            os.close(sinks.result)
        return folder

    async def ended(self, folder: Path) -> Result:
        while True:
            if result := Result.decode((folder / "result").read_bytes()):
                return result
            async with self.agent() as client:  # The answer comes after what was to be done.
                await client.listing()
            await asyncio.sleep(0)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[_Bench]:
    runner = _Runner()
    server = Server("double", tmp_path, runner, {})
    made = _Bench(tmp_path, runner)
    await made.ask("bind", uid=UID)
    yield made
    await server.close()


async def test_a_command_is_recorded_and_its_preview_is_no_output(bench: _Bench) -> None:
    folder = await bench.start("one", "sh", "-c", "echo out; exit 3")
    result = await bench.ended(folder)
    assert (result.kind, result.number, result.output_bytes) == (ExitKind.CODE, 3, 4)
    descriptor = os.open(folder / "log", os.O_RDONLY)
    try:
        found = LogReader(descriptor).read()
    finally:
        os.close(descriptor)
    told = [(each.kind, each.offset, each.size) for each in found]
    assert told == [
        (Kind.START, 0, 0),
        (Kind.PREVIEW, 0, 0),
        (Kind.CHUNK, 0, 4),
        (Kind.EXIT, 4, 0),
    ]


async def test_a_key_runs_once(bench: _Bench) -> None:
    folder = await bench.start("one", "true")
    await bench.start("one", "true")
    await bench.ended(folder)
    assert bench.runner.ran == ["one"]
    await bench.ask("unbind", uid=UID)
    await bench.ask("bind", uid=UID)
    with pytest.raises(AgentError) as refused:
        await bench.start("one", "true")
    assert refused.value.code is ErrorCode.ALREADY_STARTED
    assert bench.runner.ran == ["one"]


async def test_what_cannot_run_leaves_an_empty_log(bench: _Bench) -> None:
    with pytest.raises(AgentError) as refused:
        await bench.start("one", "none")
    assert refused.value.code is ErrorCode.PROGRAM_NOT_FOUND
    assert (bench.folder / "one" / "log").read_bytes() == b""


async def test_a_cancel_is_answered_when_it_is_over_and_its_exit_says_so(bench: _Bench) -> None:
    folder = await bench.start("one", "sleep", "600")
    async with bench.agent() as client:
        await client.cancel("one", "somebody", timedelta(0))
    result = Result.decode((folder / "result").read_bytes())
    assert result
    assert (result.kind, result.text) == (ExitKind.CANCELLED, "somebody")


async def test_a_kill_of_the_tree_ends_it(bench: _Bench) -> None:
    folder = await bench.start("one", "sleep", "600")
    async with bench.agent() as client:
        await client.signal("one", 9, Scope.TREE)
    result = Result.decode((folder / "result").read_bytes())
    assert result
    assert (result.kind, result.number) == (ExitKind.SIGNAL, 9)


async def test_a_timeout_that_the_runner_does_not_keep_is_kept(bench: _Bench) -> None:
    short = timedelta(milliseconds=50)
    folder = await bench.start("one", "sleep", "600", timeout=short, grace=short)
    async with asyncio.timeout(60):
        result = await bench.ended(folder)
    assert (result.kind, result.text) == (ExitKind.TIMED_OUT, "timeout")


async def test_more_than_the_limit_of_output_is_told(bench: _Bench) -> None:
    sinks, folder = bench.sinks("one")
    async with bench.agent() as client:
        await client.limit("one", CommandLimits(output_bytes=2))
        await client.start("one", Command(argv=["echo", "12345"], env=dict(os.environ)), sinks)
    os.close(sinks.log)
    os.close(sinks.result)
    result = await bench.ended(folder)
    assert (result.kind, result.text, result.output_bytes) == (ExitKind.LIMITED, "output", 2)


@pytest.mark.parametrize(
    ("capability", "more"),
    [
        ("input", {"stdin": True}),
        ("terminal", {"terminal": Terminal(24, 80)}),
        ("live_output", {"idle_output_timeout": timedelta(seconds=1)}),
    ],
)
async def test_what_it_cannot_do_is_named(
    bench: _Bench, capability: str, more: dict[str, object]
) -> None:
    with pytest.raises(AgentError) as refused:
        await bench.start("one", "true", **more)
    assert (refused.value.code, str(refused.value)) == (ErrorCode.CANNOT, capability)
    assert bench.runner.ran == []


async def test_a_limit_that_it_cannot_keep_starts_nothing(bench: _Bench) -> None:
    sinks, folder = bench.sinks("one")
    async with bench.agent() as client:
        await client.limit("one", CommandLimits(open_files=8))
        with pytest.raises(AgentError) as refused:
            await client.start("one", Command(argv=["true"], env={}), sinks)
    os.close(sinks.log)
    os.close(sinks.result)
    assert (refused.value.code, str(refused.value)) == (ErrorCode.CANNOT, "open_files_limit")
    assert (folder / "log").read_bytes() == b""


async def test_it_leaves_when_nothing_runs_and_only_then(bench: _Bench) -> None:
    folder = await bench.start("one", "sleep", "600")
    async with bench.agent() as client:
        assert not await client.leave()
        await client.cancel("one", "somebody", timedelta(0))
    assert Result.decode((folder / "result").read_bytes())
    async with bench.agent() as client:
        assert await client.leave()
    with pytest.raises(PeerGone):
        async with bench.agent():
            pass
    assert (await bench.ask("bound"))["uids"] == []


async def test_the_handle_in_force_is_told(bench: _Bench) -> None:
    async with bench.agent() as client:
        assert await client.handle(b"now") == await client.handle(b"") == b"now"
        with pytest.raises(AgentError) as refused:
            await client.handle(b"before")
    assert (refused.value.code, str(refused.value)) == (ErrorCode.HANDLE_STALE, "7")


async def test_files_without_an_agent_for_them_are_refused_and_marked(bench: _Bench) -> None:
    async with bench.agent() as client:
        with pytest.raises(AgentError):
            await client.make_directory("folder")
        with pytest.raises(AgentError):
            await client.open("file")
    assert bench.runner.touches == 1


async def test_drivers_that_leave_before_the_answer_leave_room(tmp_path: Path) -> None:
    peers: list[socket.socket] = []

    async def go(_: dict[str, object]) -> dict[str, object]:
        peers.pop().close()
        return {}

    server = Server("double", tmp_path, _Runner(), {"go": go})
    request = frames.frame(PROTOCOL_VERSION, frames.LAUNCHER, 1, protocol.encode({"verb": "go"}))
    for _ in range(64):
        peers.append(socket.socket(socket.AF_UNIX))
        peers[0].connect(str(tmp_path / "double"))
        peers[0].sendall(request)
        await until(lambda: not peers)
    assert (await _Bench(tmp_path, _Runner()).ask("bound"))["uids"] == []
    await server.close()
