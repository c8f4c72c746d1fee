"""Builds a program in another language, and runs it behind a network that breaks."""

import asyncio
import os
import signal
import subprocess
import time
import uuid
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final

from tests.interop.languages import Program
from tests.interop.proxies import Cutting, Losing, LosingWeb
from tests.interop.scenario import LOST, Scenario, check_lines, check_suite
from tests.interop.web import envoy
from tests.support.suite import Done, Suite

_BUILD: Final = 1200.0
_RUN: Final = 180.0


class Run:
    """One run of the scenario, between a suite and proxies of its own."""

    def __init__(self, program: Program, suite: Suite, repository: Path, folder: Path) -> None:
        self.scenario = Scenario(program.name, uuid.uuid4().hex[:8])
        self.lost: list[str] = []
        self.cuts = 0
        self._program, self._suite = program, suite
        self._repository, self._folder = repository, folder

    async def perform(self, executable: Path) -> None:
        """Raises `AssertionError` when it does not end well."""
        async with AsyncExitStack() as stack:
            address = self._suite.grpc
            if self._program.web:
                address = await stack.enter_async_context(envoy(address, self._folder))
            lose = LosingWeb(address) if self._program.web else Losing(address)
            losing = await stack.enter_async_context(lose.serving())
            cutting = await stack.enter_async_context(Cutting(address).serving())
            variables = {
                "COVE_ADDRESS": address,
                "COVE_TOKEN": self._suite.token,
                "COVE_REPOSITORY": f"file://{self._repository}",
                "COVE_SUFFIX": self.scenario.suffix,
                "COVE_LOSING_ADDRESS": losing.address,
                "COVE_CUTTING_ADDRESS": cutting.address,
            }
            done = await run_to_end(executable, variables)
            assert done.status == 0, f"{done.text}\n{done.errors[-4000:]}"
            self.scenario.hear(done.stdout)
            self.lost, self.cuts = losing.lost, cutting.cuts

    async def check(self) -> None:
        """Raises `AssertionError` when something was not as it must be."""
        check_lines(self.scenario)
        # What broke nothing would prove nothing.
        assert set(self.lost) == set(LOST)
        assert self.cuts >= self.scenario.told("output")["breaks"]
        async with self._suite.client() as cove:
            await check_suite(cove, self.scenario)


async def build(program: Program) -> float:
    """By the language's own tools; returns how long it took."""
    start = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        program.build,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_BUILD):
            output, _ = await process.communicate()
    finally:
        await _end(process)
    assert process.returncode == 0, output.decode(errors="replace")[-4000:]
    return time.monotonic() - start


async def run_to_end(program: Path, variables: dict[str, str], *arguments: str) -> Done:
    """Run a program to its end."""
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_RUN):
            stdout, stderr = await process.communicate()
    finally:
        await _end(process)
    assert process.returncode is not None
    return Done(process.returncode, stdout, stderr)


async def _end(process: asyncio.subprocess.Process) -> None:
    """With all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
