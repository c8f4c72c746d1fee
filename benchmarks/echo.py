"""The floor: a raw grpc.aio server, in a process of its own, with no interceptor at all."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc

Unary: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
Stream: TypeAlias = "grpc.aio.UnaryStreamMultiCallable[bytes, bytes]"


@asynccontextmanager
async def echo_server(folder: str, address: str = "") -> AsyncIterator[grpc.aio.Channel]:
    """At a socket in `folder`, or at an address."""
    address = address or f"unix:{folder}/echo"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.echo", address, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        told = (await process.stdout.readline()).decode().strip()
        async with grpc.aio.insecure_channel(told) as channel:
            yield channel
    finally:
        process.terminate()
        await process.wait()


async def _serve(address: str) -> None:
    async def unary(request: bytes, context: Any) -> bytes:
        return request

    async def stream(request: bytes, context: Any) -> None:
        size, chunk = map(int, request.split())
        for _ in range(size // chunk):
            await context.write(b"x" * chunk)

    async def cancelled(request: bytes, context: Any) -> None:
        """Opens the FIFO it is told of, and closes it when it is cancelled."""
        with open(request, "wb", buffering=0) as fifo:  # noqa: PTH123 # A path in bytes.
            fifo.write(b"+")
            await context.write(b"")
            await asyncio.Event().wait()

    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "bench.Echo",
                {
                    "Unary": grpc.unary_unary_rpc_method_handler(unary),
                    "Stream": grpc.unary_stream_rpc_method_handler(stream),
                    "Cancelled": grpc.unary_stream_rpc_method_handler(cancelled),
                },
            ),
        )
    )
    port = server.add_insecure_port(address)
    await server.start()
    served = address if address.startswith("unix:") else f"127.0.0.1:{port}"
    print(served, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
