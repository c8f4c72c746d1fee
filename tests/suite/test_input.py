"""Input of commands over the death of services: each byte comes exactly once."""

import asyncio
from pathlib import Path

import pytest

from cove.executor.v1.executor_pb2 import Chunk
from cove.status import FailedPrecondition, OutOfRange
from cove.sync import Client
from tests.support.suite import Suite

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.long]

LINES = [b"%d\n" % number * 50 for number in range(200)]


@pytest.mark.parametrize("service", ["executor", "gateway"])
@pytest.mark.parametrize("attached", [False, True], ids=["calls", "attached"])
async def test_input_is_whole_over_the_death_of_a_service(
    suite: Suite, repository: Path, service: str, attached: bool
) -> None:
    async with suite.client() as cove, await cove.workspaces.create(repository) as ws:
        cat = await ws.start("cat", stdin=True)
        seat = await cat.attach() if attached else None

        async def write() -> None:
            for at, line in enumerate(LINES):
                await (seat or cat).write(line)
                if at == len(LINES) // 2:
                    half.set()
            if seat:
                await seat.close_input()
            else:
                await cat.write(b"", close=True)

        half = asyncio.Event()
        writing = asyncio.create_task(write())
        killing = asyncio.create_task(_kill(suite, service, half))
        events = [event async for event in (seat.events() if seat else cat.output())]
        await asyncio.gather(writing, killing)
        output = b"".join(event.data for event in events if isinstance(event, Chunk))
        assert output == b"".join(LINES)
        ended = await cat.wait()
        assert (ended.input_bytes, ended.input_closed) == (len(output), True)
        if seat:
            await seat.close()


async def _kill(suite: Suite, service: str, when: asyncio.Event) -> None:
    await when.wait()
    await suite.kill(service)


async def test_what_is_refused_is_told(suite: Suite, repository: Path) -> None:
    async with suite.client() as cove, await cove.workspaces.create(repository) as ws:
        cat = await ws.start("cat", stdin=True)
        with pytest.raises(OutOfRange) as gap:
            await cat.write("x", offset=5)
        assert gap.value.metadata["expected"] == "0"
        async with await cat.attach() as first:
            with pytest.raises(FailedPrecondition) as held:
                await cat.attach()
            assert held.value.reason == "ERROR_REASON_INPUT_HELD"
            async with await cat.attach(take_over=True) as second:
                async for event in first.events():
                    assert not isinstance(event, Chunk)
                    break
                with pytest.raises(FailedPrecondition):
                    await first.write("x")
                await second.write("y")
                async for event in second.events():
                    assert isinstance(event, Chunk)
                    assert event.data == b"y"
                    break
        async with await cat.attach(read_only=True) as looking:
            with pytest.raises(FailedPrecondition):
                await looking.write("x")
        await cat.signal(15)


async def test_the_blocking_client_writes_too(suite: Suite, repository: Path) -> None:
    def blocking() -> bytes:
        with (
            Client(suite.grpc, suite.token) as cove,
            cove.workspaces.create(repository) as ws,
        ):
            shell = ws.start("sh", terminal=(24, 80))
            with shell.attach() as seat:
                seat.write("echo $((6 * 7)); exit\r")
                return b"".join(each.data for each in seat.events() if isinstance(each, Chunk))

    assert b"\n42\r\n" in await asyncio.to_thread(blocking)
