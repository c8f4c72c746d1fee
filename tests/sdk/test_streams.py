"""Output, files: one unbroken stream of exact bytes over any number of drops."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import grpc
import pytest

from cove import status
from cove.client import Client
from cove.connection import Connection
from cove.endpoint import Endpoint
from cove.errors.v1.errors_pb2 import ErrorReason
from cove.executor.v1.executor_pb2 import Chunk, Exit, Gap, Preview
from cove.output import Event, read_output
from tests.sdk.double import ETAG, Gateway, broken_off, made, serving, told

OUTPUT = bytes(range(256)) * 8
NAME = "workspaces/demo/executions/e"


async def collected(client: Client, offset: int = 0) -> list[Event]:
    execution = client.workspaces.named("demo").executions.named("e")
    return [event async for event in execution.output(offset)]


def content(events: list[Event]) -> bytes:
    """The bytes, which must be in one piece and followed by the exit."""
    *parts, end = events
    assert isinstance(end, Exit)
    offsets = [part.offset for part in parts if isinstance(part, Chunk)]
    sizes = [len(part.data) for part in parts if isinstance(part, Chunk)]
    assert offsets == [offsets[0] + sum(sizes[:at]) for at in range(len(sizes))]
    return b"".join(part.data for part in parts if isinstance(part, Chunk))


async def test_output_survives_more_drops_than_any_budget(cove: Client, gateway: Gateway) -> None:
    gateway.output, gateway.fragile = OUTPUT, True
    events = await collected(cove)
    assert content(events) == OUTPUT
    assert len(gateway.requests) > 100


async def test_what_comes_again_is_no_progress(cove: Client, gateway: Gateway) -> None:
    gateway.output, gateway.fragile, gateway.overlap = OUTPUT, True, 10
    async with Client(cove.address, patience=0.5) as impatient:
        with pytest.raises(status.Unavailable):
            await collected(impatient)


async def test_output_from_the_tail_survives_drops(cove: Client, gateway: Gateway) -> None:
    gateway.output, gateway.fragile = OUTPUT, True
    assert content(await collected(cove, -100)) == OUTPUT[-100:]
    assert [each.from_offset for each in gateway.requests[:2]] == [-100, len(OUTPUT) - 90]


async def test_no_byte_comes_twice(cove: Client, gateway: Gateway) -> None:
    gateway.output, gateway.fragile, gateway.overlap = OUTPUT[:100], True, 7
    assert content(await collected(cove)) == OUTPUT[:100]


async def test_missing_bytes_are_a_gap(cove: Client, gateway: Gateway) -> None:
    gateway.output, gateway.fragile, gateway.skip = b"x" * 25, True, 5
    first, gap, *_ = await collected(cove)
    assert isinstance(first, Chunk)
    assert isinstance(gap, Gap)
    assert (getattr(gap, "from"), gap.to) == (10, 15)


async def test_a_preview_comes_once_and_only_to_who_asks(cove: Client, gateway: Gateway) -> None:
    gateway.output, gateway.fragile, gateway.previews = OUTPUT[:60], True, [b"one", b"two"]
    assert content(await collected(cove)) == OUTPUT[:60]
    execution = cove.workspaces.named("demo").executions.named("e")
    events = [event async for event in execution.output(previews=True)]
    seen = [event.data for event in events if isinstance(event, Preview)]
    assert seen == [b"one", b"two"]
    assert content([each for each in events if not isinstance(each, Preview)]) == OUTPUT[:60]


async def test_output_goes_on_when_the_gateway_is_back(address: str) -> None:
    gateway = made()
    gateway.output = OUTPUT
    async with Client(address) as client:
        execution = client.workspaces.named("demo").executions.named("e")
        async with aclosing(execution.output()) as events:
            async with serving(gateway, address):
                received = [await anext(events)]
            async with serving(gateway, address):
                received += [event async for event in events]
    assert content(received) == OUTPUT


async def test_a_silent_stream_is_opened_anew(address: str, gateway: Gateway) -> None:
    gateway.output, gateway.silent = OUTPUT, True
    async with Connection(Endpoint(address=address), patience=30, silence=1) as connection:
        assert content([event async for event in read_output(connection, NAME)]) == OUTPUT
    assert len(gateway.requests) > 1  # A busy machine lets others wait for that long, too.


async def test_a_gateway_that_stays_away_ends_the_stream(address: str) -> None:
    gateway = made()
    gateway.output = OUTPUT
    async with Client(address, patience=0.3) as client:
        execution = client.workspaces.named("demo").executions.named("e")
        async with aclosing(execution.output()) as events:
            async with serving(gateway, address):
                await anext(events)
            with pytest.raises(status.Unavailable):
                [event async for event in events]


async def test_a_reader_that_leaves_ends_the_call(cove: Client, gateway: Gateway) -> None:
    gateway.silent = True
    execution = cove.workspaces.named("demo").executions.named("e")
    async with asyncio.timeout(30), aclosing(execution.output()) as events:
        reading = asyncio.ensure_future(anext(events))
        await gateway.asked.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    async with asyncio.timeout(30):
        await gateway.left.wait()


async def test_a_file_is_read_on_after_a_drop(cove: Client, gateway: Gateway) -> None:
    gateway.output, gateway.fragile = OUTPUT, True
    demo = cove.workspaces.named("demo")
    assert await demo.read("f") == OUTPUT
    assert await demo.read("f", 5, 20) == OUTPUT[5:25]


async def test_a_file_that_changes_under_the_reader_is_not_mixed(
    cove: Client, gateway: Gateway
) -> None:
    gateway.output, gateway.fragile = OUTPUT, True
    async with aclosing(cove.workspaces.named("demo").files.download("f")) as pieces:
        await anext(pieces)
        gateway.etag = "2"
        with pytest.raises(status.Aborted) as caught:
            [piece async for piece in pieces]
    assert caught.value.reason == "ERROR_REASON_FILE_CHANGED"


async def test_a_file_comes_whole_and_with_its_etag_over_drops(
    cove: Client, gateway: Gateway
) -> None:
    gateway.output, gateway.fragile = OUTPUT, True
    content = await cove.workspaces.named("demo").files.fetch("f", offset=3, limit=25)
    assert content.data == OUTPUT[3:28]
    assert (content.file.path, content.file.etag) == ("f", ETAG)


@pytest.mark.parametrize("local", [False, True])
async def test_an_upload_is_repeated_whole(
    cove: Client, gateway: Gateway, tmp_path: Path, local: bool
) -> None:
    source = tmp_path / "f"
    source.write_bytes(OUTPUT * 1000)
    gateway.failures = [broken_off]
    content = source if local else source.read_bytes()
    written = await cove.workspaces.named("demo").write("f", content)
    assert (written.size, gateway.output) == (len(OUTPUT) * 1000, OUTPUT * 1000)
    assert gateway.requests[0] == gateway.requests[1]


async def test_an_upload_that_is_refused_says_why(cove: Client, gateway: Gateway) -> None:
    reason = ErrorReason.ERROR_REASON_PATH_OUTSIDE
    gateway.failures = [told(grpc.StatusCode.INVALID_ARGUMENT, reason)] * 100
    with pytest.raises(status.InvalidArgument):
        await cove.workspaces.named("demo").write("f", OUTPUT * 10_000)


async def test_a_local_file_that_is_missing_is_told(cove: Client, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await cove.workspaces.named("demo").write("f", tmp_path / "none")


@pytest.mark.parametrize("path", ["a b", "ä", b"\xff/x", Path("d/f")])
async def test_any_path_can_be_named(
    cove: Client, gateway: Gateway, path: str | bytes | Path
) -> None:
    await cove.workspaces.named("demo").read(path)
    request = gateway.requests[0]
    if isinstance(path, bytes):
        assert (request.path, request.raw_path) == ("", path)
    else:
        assert (request.path, request.raw_path) == (str(path), b"")
