"""Two hundred clients at once: nobody is told of an error that was not announced, services do not
grow, and nobody waits much longer than the others."""

import asyncio
import os
import statistics
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.load.customers import Customer, Told
from tests.support.repository import make_repository
from tests.support.suite import SERVICES, Suite, running_suite

SECONDS: Final = float(os.environ.get("COVE_LOAD_SECONDS", "300"))
FEW_SECONDS: Final = float(os.environ.get("COVE_LOAD_TEST_SECONDS", "30"))
CLIENTS: Final = 200
CHANNELS: Final = 8
WORKSPACES: Final = 20
WARM: Final = 0.3
"""Of the time: what grows until then is what a service needs for so many clients."""
GROWTH: Final = 24 << 20
SLOWEST: Final = 10.0
ALONE: Final = 300.0
"""Seconds from which on it is taken to have the machine for itself."""
REFUSED: Final = 0.02
"""Of the calls so many may be refused."""
ENOUGH: Final = 100
"""Calls of a kind of which the slowest hundredth says something."""


def say(what: object) -> None:
    """Figures, for whoever runs it with `-s`."""
    sys.stdout.write(f"{what}\n")


def resident(suite: Suite) -> dict[str, int]:
    """Bytes of memory that each service has."""
    return {
        service: int(Path(f"/proc/{suite.pid(service)}/statm").read_text().split()[1]) * 4096
        for service in SERVICES
    }


async def looking(channel: grpc.aio.Channel, seconds: list[float]) -> None:
    """Ask for the health, which is always told: how long the machine itself lets one wait."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    while True:
        began = time.perf_counter()
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        seconds.append(time.perf_counter() - began)
        await asyncio.sleep(0.02)


def slow(told: Told, machine: float, most_times: float | None) -> dict[str, str]:
    """The kinds of which the slowest hundredth takes too many times as long as the middle, or as
    the `machine` seconds that one of a hundred takes which asks for the health: where others take
    the processors for a tenth of a second, no call of some milliseconds goes by that unharmed."""
    found = {}
    for kind, seconds in told.seconds.items():
        if len(seconds) < ENOUGH:
            continue
        middle, most = statistics.median(seconds), statistics.quantiles(seconds, n=100)[98]
        say(f"{kind:8} {len(seconds):7} p50 {middle:.3f} p99 {most:.3f} {most / middle:5.1f} x")
        if most_times and most > most_times * max(middle, machine):
            found[kind] = f"{most:.3f} s against {middle:.3f} s"
    return found


async def load(folder: Path, seconds: float, most_times: float | None = None) -> None:
    """Without `most_times` nothing is said of who waits: other tests take the processors."""
    make_repository(folder / "app", {"README.md": "hello\n" * 100, "src/main.py": "say(1)\n"})
    told = Told()
    async with running_suite(folder / "suite") as suite, AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(
                    suite.grpc, options=[("grpc.use_local_subchannel_pool", 1)]
                )
            )
            for _ in range(CHANNELS)
        ]
        shared = [f"shared-{number}" for number in range(WORKSPACES)]
        customers = [
            Customer(
                f"c{number}",
                channels[number % CHANNELS],
                suite.token,
                f"file://{folder}/app",
                shared,
                told,
                f"{number}",
            )
            for number in range(CLIENTS)
        ]
        for name in shared:
            await customers[0].make(name)
            await customers[0].awake(name)
        healths: list[float] = []
        look = asyncio.create_task(looking(channels[0], healths))
        leave = asyncio.Event()
        began = time.monotonic()
        living = [asyncio.create_task(each.live(leave)) for each in customers]
        await asyncio.sleep(seconds * WARM)
        for kind in told.seconds.values():
            kind.clear()
        healths.clear()
        before = resident(suite)
        await asyncio.sleep(seconds * (1 - WARM))
        after = resident(suite)
        leave.set()
        assert not look.done(), look.exception()
        look.cancel()
        machine = statistics.quantiles(healths, n=100)[98]
        await asyncio.gather(*living)
        took = time.monotonic() - began
        done = sum(map(len, told.seconds.values()))
        say(f"\n{done} calls, all of it took {took:.0f} s; refused {dict(told.refused)}")
        growth = {name: after[name] - before[name] for name in after}
        say({name: f"{after[name] >> 20} MiB, {each >> 10:+} KiB" for name, each in growth.items()})
        say(f"health: p50 {statistics.median(healths):.3f} p99 {machine:.3f}")
        too_slow = slow(told, machine, most_times)
        assert not told.wrong, told.wrong[:20]
        assert told.refused.total() <= REFUSED * done, told.refused
        assert max(growth.values()) < GROWTH, growth
        assert not too_slow
        assert b"Traceback" not in suite.log.read_bytes()


@pytest.mark.timeout(240)
async def test_two_hundred_clients_are_served(tmp_path: Path) -> None:
    await load(tmp_path, FEW_SECONDS)


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 400)
async def test_two_hundred_clients_for_long_are_served_alike(tmp_path: Path) -> None:
    # A slice of it runs beside others.
    await load(tmp_path, SECONDS, SLOWEST if SECONDS >= ALONE else None)
