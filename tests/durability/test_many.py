"""Very many executions at once."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest

from tests.durability import stalls
from tests.executor.node import Caller, Node, Sandbox, calling, until

pytestmark = pytest.mark.long

EXECUTIONS = int(os.environ.get("COVE_EXECUTIONS", "1000"))
SPREAD = 5
"""Environments; one runs 256 at once at most."""
STALL = 0.05
"""Seconds of the processor that the loop may be held up."""


@asynccontextmanager
async def measured(node: Node, told: Path) -> AsyncIterator[tuple[Caller, int]]:
    """An executor that measures itself, and its pid."""
    address = f"unix:{node.runtime}/many"
    env = node.environment(address)
    argv = [sys.executable, stalls.__file__, str(told), "services.executor"]
    root = Path(stalls.__file__).parent.parent.parent
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, cwd=root) as process:
        try:
            assert process.stdout
            await asyncio.to_thread(process.stdout.readline)
            async with calling(address) as caller:
                yield caller, process.pid
        finally:
            process.kill()


async def begin(caller: Caller, box: Sandbox, name: str, script: str) -> int:
    """Start it; how often that was asked for again, as the machine has other things to do too."""
    again = 0
    while True:
        try:
            await caller.start(box, name, script)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
            again += 1
        else:
            return again


@pytest.mark.timeout(600)
async def test_a_thousand_at_once_all_end_well_and_hold_up_nobody(
    node: Node,
    tmp_path: Path,
) -> None:
    told = tmp_path / "told"
    async with AsyncExitStack() as stack:
        boxes = [await stack.enter_async_context(node.sandbox()) for _ in range(SPREAD)]
        caller, pid = await stack.enter_async_context(measured(node, told))
        for box in boxes:
            await caller.execute(box, "true")
        for box in boxes:
            os.mkfifo(box.tree / "go")
            (box.tree / "go").chmod(0o666)
        script = "echo $0; read _ < go; exit 5"  # It waits without a process more.
        began = time.monotonic()
        places = [(boxes[number % SPREAD], f"e{number}") for number in range(EXECUTIONS)]
        again = await asyncio.gather(*(begin(caller, *place, script) for place in places))
        took = time.monotonic() - began
        for box in boxes:
            opened = os.open(box.tree / "go", os.O_RDWR | os.O_NONBLOCK)
            stack.callback(os.close, opened)
            os.write(opened, b"\n" * EXECUTIONS)
        ends = await asyncio.gather(*(caller.wait(*place) for place in places))
        outputs = await asyncio.gather(*(caller.output(*place) for place in places))
        os.kill(pid, signal.SIGUSR1)

        async def measured_it() -> bool:
            return told.exists()

        await until(measured_it)
    stall = json.loads(told.read_text())
    print(f"{EXECUTIONS} began in {took:.1f} s; longest callback {stall}")  # noqa: T201
    print(f"{sum(map(bool, again))} were asked for again")  # noqa: T201
    wrong = [each for each in ends if each.exit.code != 5]
    assert not wrong, str(wrong[0].exit)
    assert outputs == [b"sh\n"] * EXECUTIONS
    assert stall["processor"] <= STALL, stall
