"""Limits that the agent keeps, as root and as an ordinary user."""

import asyncio
import secrets

import pytest

from agent import frames
from agent.client import AgentError, CommandLimits, ErrorCode
from agent.record import ExitKind
from tests.agent.node import Box, Ended, Node, close, command, ended, python

_SIGXCPU, _SIGXFSZ = 24, 25


async def _limited(box: Box, *argv: str, **limits: int) -> Ended:
    execution_id = secrets.token_hex(4)
    sinks = box.sinks(execution_id)
    try:
        async with box.agent() as agent:
            await agent.limit(execution_id, CommandLimits(**limits))
            await agent.start(execution_id, command(*argv), sinks)
            return await ended(sinks)
    finally:
        close(sinks)


async def test_each_limit_of_a_process(node: Node) -> None:
    async with node.sandbox() as box:
        nproc = "import resource; print(resource.getrlimit(resource.RLIMIT_NPROC)[1])"
        data = "a = bytearray(256 << 20)"
        runs = {
            "data": _limited(box, *python(data), data_bytes=64 << 20),
            "cpu": _limited(box, *python("while True: pass"), cpu_seconds=1),
            "file": _limited(box, "dd", "if=/dev/zero", "of=f", "bs=64k", file_bytes=1 << 20),
            "files": _limited(box, "sh", "-c", "ulimit -n", open_files=20),
            "processes": _limited(box, *python(nproc), processes=60),
            "none": _limited(box, "true"),
        }
        results = dict(zip(runs, await asyncio.gather(*runs.values()), strict=True))
    assert b"MemoryError" in results["data"].stderr
    assert results["data"].result.number == 1
    assert results["cpu"].result.kind is ExitKind.SIGNAL
    assert results["cpu"].result.number == _SIGXCPU
    assert results["file"].result.number == _SIGXFSZ
    assert results["files"].stdout == b"20\n"
    assert results["processes"].stdout == b"60\n"
    assert results["none"].result.number == 0


@pytest.mark.parametrize("size", [1, 4095, 70_000])
async def test_a_command_that_writes_too_much_is_ended(node: Node, size: int) -> None:
    async with node.sandbox() as box:
        flood = await _limited(box, "sh", "-c", "yes & yes >&2", output_bytes=size)
        exact = await _limited(box, "head", "-c", str(size), "/dev/zero", output_bytes=size)
    assert (flood.result.kind, flood.result.text) == (ExitKind.LIMITED, "output")
    assert flood.result.output_bytes == len(flood.stdout) + len(flood.stderr) == size
    assert (exact.result.kind, exact.result.number) == (ExitKind.CODE, 0)
    assert len(exact.stdout) == size


async def test_whoever_watches_can_end_it(node: Node) -> None:
    async with node.sandbox() as box:
        sinks = box.sinks("one")
        try:
            async with box.agent() as agent:
                await agent.start("one", command("sh", "-c", "sleep 100 & wait"), sinks)
                await agent.exceeded("one", frames.DISK)
                result = (await ended(sinks)).result
                assert (result.kind, result.text) == (ExitKind.LIMITED, "disk")
                # Its child was killed with it, and is being reaped.
                async with asyncio.timeout(30):
                    while (await agent.listing()).processes:
                        pass
        finally:
            close(sinks)


async def test_limits_go_with_who_told_them(node: Node) -> None:
    async with node.sandbox() as box:
        async with box.agent() as agent:
            for number in range(256):
                await agent.limit(f"a{number}", CommandLimits(open_files=9))
            with pytest.raises(AgentError) as caught:
                await agent.limit("one more", CommandLimits(open_files=9))
            assert caught.value.code is ErrorCode.OS_ERROR
            await agent.limit("a7", CommandLimits(open_files=10))
        async with box.agent() as agent:

            async def has_room() -> bool:
                try:
                    await agent.limit("b", CommandLimits(open_files=9))
                except AgentError:
                    return False
                return True

            async with asyncio.timeout(30):
                while not await has_room():
                    pass
            ran = await box.run("sh", "-c", "ulimit -n", execution_id="a7")
            assert ran.stdout != b"10\n"
