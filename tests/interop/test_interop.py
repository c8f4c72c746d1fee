"""One scenario, run by a program in each language: a live suite, and a network that breaks."""

import asyncio
import os
import subprocess
import time
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.interop.conftest import Table
from tests.interop.languages import Program, chosen
from tests.interop.proxies import Cutting, Losing, LosingWeb
from tests.interop.scenario import LOST, Scenario, check_lines, check_suite
from tests.interop.web import envoy
from tests.support.repository import git
from tests.support.suite import Done, Suite

pytestmark = [
    pytest.mark.interop,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(1500),
]

_BUILD: Final = 1200.0
_RUN: Final = 180.0


@pytest.mark.parametrize("program", chosen(), ids=lambda program: program.name)
async def test_a_client_does_each_thing_once_and_loses_no_byte(
    suite: Suite, repository: Path, tmp_path: Path, table: Table, program: Program
) -> None:
    row = table.row(program)
    if row.missing:
        pytest.skip(f"{program.name}: missing {row.missing}")
    row.built = await build(program)
    run = Scenario(program.name, uuid.uuid4().hex[:8])
    async with AsyncExitStack() as stack:
        address, lose = suite.grpc, Losing if not program.web else LosingWeb
        if program.web:
            address = await stack.enter_async_context(envoy(suite.grpc, tmp_path))
        losing = await stack.enter_async_context(lose(address).serving())
        cutting = await stack.enter_async_context(Cutting(address).serving())
        variables = {
            "COVE_ADDRESS": address,
            "COVE_TOKEN": suite.token,
            "COVE_REPOSITORY": f"file://{repository}",
            "COVE_SUFFIX": run.suffix,
            "COVE_LOSING_ADDRESS": losing.address,
            "COVE_CUTTING_ADDRESS": cutting.address,
        }
        start = time.monotonic()
        done = await run_to_end(program.built(program.conformance), variables)
        row.ran = time.monotonic() - start
        assert done.status == 0, f"{done.text}\n{done.errors[-4000:]}"
        run.hear(done.stdout)
    check_lines(run)
    row.steps, row.lost, row.breaks = len(run.lines), len(losing.lost), run.told("output")["breaks"]
    # What broke nothing would prove nothing.
    assert set(losing.lost) == set(LOST)
    assert cutting.cuts >= row.breaks
    async with suite.client() as cove:
        await check_suite(cove, run)
    row.failed = False


@pytest.mark.parametrize(
    "program", [each for each in chosen() if each.example], ids=lambda program: program.name
)
async def test_an_example_does_what_it_says(
    suite: Suite, repository: Path, program: Program
) -> None:
    if missing := program.missing():
        pytest.skip(f"{program.name}: missing {'; '.join(missing)}")
    await build(program)
    origin = f"file://{repository}"
    script = "echo made > made.txt; seq -w 300000"
    async with Cutting(suite.grpc).serving() as cutting:
        gateway = {"COVE_ADDRESS": cutting.address, "COVE_TOKEN": suite.token}
        done = await run_to_end(program.built(program.example), gateway, origin, script)
    assert (done.status, cutting.cuts) == (0, 2), done.errors
    assert done.stdout == b"".join(b"%06d\n" % number for number in range(1, 300001))
    (commit,) = [line for line in done.errors.splitlines() if line.startswith("commit ")]
    branches = git(
        repository, "branch", "--list", f"cove/{program.name}-*", "--contains", commit[7:]
    )
    made = branches.split()[-1]
    assert git(repository, "show", "--format=%s", "--name-only", made).split("\n\n") == [
        script,
        "made.txt\n",
    ]

    gateway["COVE_ADDRESS"] = suite.grpc
    done = await run_to_end(program.built(program.example), gateway, origin, "exit 5")
    assert (done.status, done.stdout) == (5, b"")
    assert "nothing to commit" in done.errors.splitlines()
    async with suite.client() as cove:
        kept = [each.id async for each in cove.workspaces.list(show_deleted=True)]
    assert not [each for each in kept if each.startswith(program.name)]


async def build(program: Program) -> float:
    """By the language's own tools; returns how long it took."""
    start = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        program.build, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(_BUILD):
            output, _ = await process.communicate()
    finally:
        _end(process)
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
    )
    try:
        async with asyncio.timeout(_RUN):
            stdout, stderr = await process.communicate()
    finally:
        _end(process)
    assert process.returncode is not None
    return Done(process.returncode, stdout, stderr)


def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
