"""The output of a command through the gateway, against a raw stream of messages of a size.

64 KiB is what we send, several at once where the caller asks for batches, as the SDK does; 1 KiB is
what the command writes at once, and a stream that does not put small writes together would send.
"""

from pathlib import Path
from typing import Final

from benchmarks.echo import Stream, echo_server
from benchmarks.measure import Action, Aim, interleaved, report
from benchmarks.suite import Suite, make_repository
from cove.gateway.v1 import gateway_pb2 as pb

SIZE: Final = 64 << 20
SMALL: Final = 1 << 10
_AIMS: Final = (
    Aim("ReadOutput, 64 KiB", "raw, 64 KiB", 1 / 0.45),
    Aim("ReadOutput of 1 KiB writes", "raw, 1 KiB", 1 / 10),
)


async def run(suite: Suite, folder: Path) -> None:
    await suite.create(make_repository(folder / "repo", 45), "stream")
    large = await _written(suite, ("head", "-c", str(SIZE), "/dev/zero"))
    blocks = ("dd", "if=/dev/zero", "status=none", f"bs={SMALL}", f"count={SIZE // SMALL}")
    small = await _written(suite, blocks)
    async with echo_server(str(folder)) as echo:
        raw: Stream = echo.unary_stream("/bench.Echo/Stream")

        async def read(name: str) -> None:
            got = 0
            async for event in suite.executions.ReadOutput(
                pb.ReadOutputRequest(name=name, follow=True), metadata=suite.metadata
            ):
                got += len(event.chunk.data)
            assert got == SIZE, got

        async def batched(name: str) -> None:
            got = 0
            async for event in suite.executions.ReadOutput(
                pb.ReadOutputRequest(name=name, follow=True, batched=True),
                metadata=suite.metadata,
            ):
                got += sum(len(chunk.data) for chunk in event.chunks.chunks)
            assert got == SIZE, got

        async def live() -> None:
            name = await suite.start("stream", *blocks)
            await read(name)

        async def raw_stream(chunk: int) -> None:
            got = 0
            async for data in raw(b"%d %d" % (SIZE, chunk)):
                got += len(data)
            assert got == SIZE, got

        actions: dict[str, Action] = {
            "ReadOutput, 64 KiB": lambda: read(large),
            "ReadOutput, batched": lambda: batched(large),
            "ReadOutput of 1 KiB writes": lambda: read(small),
            "1 KiB writes, followed": live,
            "raw, 64 KiB": lambda: raw_stream(64 << 10),
            "raw, 1 KiB": lambda: raw_stream(SMALL),
        }
        medians = await interleaved(actions, rounds=5, warmup=1)
    report(f"stream of {SIZE >> 20} MiB, in time", medians, ["raw, 64 KiB", "raw, 1 KiB"], _AIMS)
    await suite.delete("stream")


async def _written(suite: Suite, argv: tuple[str, ...]) -> str:
    """Name of an execution that has ended."""
    name = await suite.start("stream", *argv)
    await suite.executions.WaitExecution(
        pb.WaitExecutionRequest(name=name), metadata=suite.metadata
    )
    return name
