"""What tracing every call costs a service, against the same service without.

Both answer the same calls, with a sampled `traceparent`, in turn; the collector is a process that
takes what comes and looks at none of it. By processor time of the service, all its threads, and by
throughput, in which what the caller and the collector need on the same machine counts too.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import grpc

from benchmarks.registry import registration
from benchmarks.suite import SERVICE_METADATA, Suite
from cove.registry.v1 import registry_pb2 as pb
from cove.registry.v1.registry_pb2_grpc import RegistryServiceStub

_CALLS: Final = 1000
_ROUNDS: Final = 20
_CONCURRENCY: Final = 10
_TICKS: Final = os.sysconf("SC_CLK_TCK")


async def run(_: Suite, folder: Path) -> None:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(_collector())
        settings: dict[str, dict[str, str]] = {
            "no tracing": {},
            "tracing, none sampled": {"COVE_TRACES": url, "COVE_TRACES_RATIO": "0"},
            "tracing, every call": {"COVE_TRACES": url},
        }
        services = {
            name: await stack.enter_async_context(_registry(folder / str(number), env))
            for number, (name, env) in enumerate(settings.items())
        }
        rates: dict[str, list[float]] = {name: [] for name in services}
        costs: dict[str, list[float]] = {name: [] for name in services}
        for turn in range(_ROUNDS + 1):
            order = [*services] if turn % 2 else [*reversed(services)]
            for name in order:  # Who comes first in a round has it easier.
                stub, pid = services[name]
                spent, began = _processor(pid), perf_counter()
                await _burst(stub, sampled="none" not in name)
                took, spent = perf_counter() - began, _processor(pid) - spent
                if turn:
                    rates[name].append(_CALLS / took)
                    costs[name].append(spent / _CALLS)
    print("\ntracing a unary call of the registry, 10 at a time")
    for name in list(services)[1:]:
        rate, cost = (median(each[name]) for each in (rates, costs))
        rate_0, cost_0 = (median(each["no tracing"]) for each in (rates, costs))
        print(
            f"  {name:24} {cost / cost_0:5.2f} x the processor time"
            f" ({cost * 1e6:.0f} us against {cost_0 * 1e6:.0f} us),"
            f" {rate / rate_0:5.2f} x the throughput ({rate:.0f}/s against {rate_0:.0f}/s)"
        )


async def _burst(stub: RegistryServiceStub, *, sampled: bool) -> None:
    left = _CALLS
    request = pb.GetEnvironmentRequest(name="environments/e000000")
    flags = "01" if sampled else "00"

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            given = f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-{flags}"
            await stub.GetEnvironment(request, metadata=(*SERVICE_METADATA, ("traceparent", given)))

    await asyncio.gather(*(worker() for _ in range(_CONCURRENCY)))


def _processor(pid: int) -> float:
    """Seconds that the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@asynccontextmanager
async def _registry(
    folder: Path, settings: dict[str, str]
) -> AsyncIterator[tuple[RegistryServiceStub, int]]:
    env = {
        **os.environ,
        **settings,
        "COVE_STATE": str(folder / "s"),
        "COVE_RUNTIME": str(folder / "r"),
    }
    async with (
        _process("-m", "services.registry", env=env) as (_, pid),
        grpc.aio.insecure_channel(f"unix:{folder}/r/registry") as channel,
    ):
        stub = RegistryServiceStub(channel)
        await stub.RegisterEnvironment(registration(0), metadata=SERVICE_METADATA)
        yield stub, pid


@asynccontextmanager
async def _collector() -> AsyncIterator[str]:
    async with _process("-m", "benchmarks.tracing", env=dict(os.environ)) as (told, _):
        yield told


@asynccontextmanager
async def _process(*argv: str, env: dict[str, str]) -> AsyncIterator[tuple[str, int]]:
    """Runs Python; with the first line that it writes, and its pid. Its log goes nowhere."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout
    try:
        yield (await process.stdout.readline()).decode().strip(), process.pid
    finally:
        process.terminate()
        await process.wait()


async def _collect() -> None:
    async def export(request: bytes, context: Any) -> bytes:
        return b""

    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(export)
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    handlers = grpc.method_handlers_generic_handler(service, {"Export": handler})
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"http://127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_collect())
