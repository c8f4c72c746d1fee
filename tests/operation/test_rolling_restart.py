"""Every service is restarted, one after the other, and no caller notices."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from cove import health
from cove.client import Client
from cove_server.ports import reserved
from tests.operation.clients import Tally, Worker
from tests.support.suite import Suite, running_suite, until

ROUNDS: Final = int(os.environ.get("COVE_ROLLING_ROUNDS", "2"))
WORKERS: Final = 4
_BOUND: Final = 60.0
_POLL: Final = 0.02
_BETWEEN: Final = 3
"""So many more turns of the workers are seen before the next is restarted."""


class Gateway:
    """A second gateway on the same tools, as another machine would have one."""

    def __init__(self, suite: Suite, address: str, folder: Path) -> None:
        self.address = address
        self._suite = suite
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        env = {
            **self._suite.env,
            "COVE_STATE": str(self._suite.state),
            "COVE_RUNTIME": str(self._suite.runtime),
            "COVE_GATEWAY__GRPC": self.address,
            "COVE_GATEWAY__ADDRESS": f"unix:{self._folder}/gateway",
        }
        with (self._folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "gateway"),
                env=env,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
            )
        await healthy(self.address)

    async def stop(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_BOUND):
            assert await self._process.wait() == 0

    async def restart(self) -> None:
        await self.stop()
        await self.start()


async def healthy(address: str) -> None:
    async with asyncio.timeout(_BOUND):
        while await health.ask(address) != health.SERVING:  # noqa: ASYNC110
            await asyncio.sleep(_POLL)


@contextlib.asynccontextmanager
async def second(suite: Suite, folder: Path) -> AsyncIterator[Gateway]:
    folder.mkdir(mode=0o700)
    with reserved("127.0.0.1:0") as address:
        gateway = Gateway(suite, address, folder)
        await gateway.start()
        try:
            yield gateway
        finally:
            await gateway.stop()


async def restart(suite: Suite, service: str) -> None:
    """As an upgrade does it: SIGTERM, and a new one when it has ended."""
    before = await suite.up(service)
    os.kill(before, signal.SIGTERM)
    await until(lambda: suite.pid(service) not in (0, before), f"{service} is there", _BOUND)
    address = suite.grpc if service == "gateway" else suite.address(service)
    await healthy(address)


@pytest.mark.long
@pytest.mark.timeout(120 + 60 * ROUNDS)
async def test_no_call_fails_in_a_rolling_restart(tmp_path: Path) -> None:
    """All services in turn, and two gateways behind one list of addresses, under load."""
    tally = Tally()
    async with (
        running_suite(tmp_path) as suite,
        second(suite, tmp_path / "g2") as other,
    ):
        both = f"ipv4:{suite.grpc},{other.address}", f"ipv4:{other.address},{suite.grpc}"
        leave = asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            workers = []
            for number in range(WORKERS):
                address = both[number % 2]
                client = await stack.enter_async_context(Client(address, suite.token))
                workers.append(asyncio.create_task(Worker(number, client, tally, leave).live()))
            try:
                for _ in range(ROUNDS):
                    for service in ("registry", "git", "provider", "executor", "gateway"):
                        await restart(suite, service)
                        await _turns(tally, workers)
                    await other.restart()
                    await _turns(tally, workers)
            finally:
                leave.set()
                await asyncio.wait(workers)
                for each in workers:
                    each.result()
    told = "\n".join([*tally.failed, *tally.wrong])
    assert not told, f"{len(tally.failed)} of {tally.done.total()} failed:\n{told}"
    assert tally.done["stream"] == WORKERS
    assert tally.done["ask"] >= ROUNDS * 6 * _BETWEEN
    assert tally.done["life"] >= ROUNDS * 6 * _BETWEEN
    sys.stdout.write(f"\n{ROUNDS} rounds of 6 restarts, none failed of {dict(tally.done)}\n")


async def _turns(tally: Tally, workers: list["asyncio.Task[None]"]) -> None:
    """Wait until the load went on for a while."""
    goal = tally.done["life"] + len(tally.failed) + len(tally.wrong) + _BETWEEN
    await until(
        lambda: (
            tally.done["life"] + len(tally.failed) + len(tally.wrong) >= goal
            or any(each.done() for each in workers)
        ),
        "the clients go on",
        2 * _BOUND,
    )
