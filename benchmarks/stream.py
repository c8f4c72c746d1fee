"""The output of a command through the gateway, against a raw stream of 64 KiB messages."""

from pathlib import Path

from benchmarks.echo import CHUNK, Stream, echo_server
from benchmarks.measure import interleaved, report
from benchmarks.suite import Suite, make_repository
from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb

SIZE = 64 * 1024 * 1024


async def run(suite: Suite, folder: Path) -> None:
    await suite.create(make_repository(folder / "repo", 45), "stream")
    spec = executor_pb2.ExecutionSpec(argv=["head", "-c", str(SIZE), "/dev/zero"])
    started = await suite.executions.StartExecution(
        pb.StartExecutionRequest(
            parent="workspaces/stream", execution=executor_pb2.Execution(spec=spec)
        ),
        metadata=suite.metadata,
    )
    name = started.execution.name
    await suite.executions.WaitExecution(
        pb.WaitExecutionRequest(name=name), metadata=suite.metadata
    )
    async with echo_server(str(folder)) as echo:
        raw: Stream = echo.unary_stream("/bench.Echo/Stream")

        async def through_gateway() -> None:
            got = 0
            async for event in suite.executions.ReadOutput(
                pb.ReadOutputRequest(name=name), metadata=suite.metadata
            ):
                got += len(event.chunk.data)
            assert got == SIZE, got

        async def raw_stream() -> None:
            got = 0
            async for data in raw(str(SIZE).encode()):
                got += len(data)
            assert got == SIZE // CHUNK * CHUNK

        medians = await interleaved(
            {"ReadOutput through the gateway": through_gateway, "raw grpc.aio stream": raw_stream},
            rounds=5,
            warmup=1,
        )
    report(f"stream of {SIZE >> 20} MiB, in time", medians, ["raw grpc.aio stream"])
    await suite.delete("stream")
