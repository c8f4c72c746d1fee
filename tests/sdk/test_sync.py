"""The blocking client: its thread, and what ends with it."""

import asyncio
import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from cove import Client as AsyncClient
from cove import connection, status
from cove.errors.v1.errors_pb2 import ErrorReason
from cove.executor.v1.executor_pb2 import Chunk, Exit
from cove.loop import Loop
from cove.sync import Client, Closed
from tests.sdk.double import Gateway, broken_off, made, serving, told

OUTPUT = bytes(range(256)) * 4
_BOUND = 30.0


class Apart:
    """The double in a thread of its own, so that a test may block."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.gateway: Gateway = made()
        self.left = threading.Event()
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="double")

    async def _serve(self) -> None:
        async with serving(self.gateway, self.address):
            self._ready.set()
            leaving = asyncio.create_task(self._leaving())
            await asyncio.to_thread(self._stop.wait)
            leaving.cancel()

    async def _leaving(self) -> None:
        await self.gateway.left.wait()
        self.left.set()

    def __enter__(self) -> "Apart":
        self._thread.start()
        assert self._ready.wait(_BOUND)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(_BOUND)


@pytest.fixture
def apart(address: str) -> Iterator[Apart]:
    with Apart(address) as double:
        yield double


@pytest.fixture
def blocking(apart: Apart) -> Iterator[Client]:
    with Client(apart.address, "secret") as client:
        yield client


def threads() -> list[threading.Thread]:
    """Those of clients."""
    return [each for each in threading.enumerate() if each.name == "cove"]


def test_calls_streams_and_files_need_no_event_loop(blocking: Client, apart: Apart) -> None:
    demo = blocking.workspaces.create("file:///r", id="demo")
    assert (demo.id, demo.name, repr(demo)) == (
        "demo",
        "workspaces/demo",
        "<Workspace workspaces/demo>",
    )
    assert demo.execute("false").exit_status == 3
    assert demo.write("f", "text").size == 4
    assert demo.read_text("f") == "text"
    *chunks, end = demo.executions.named("e").output()
    assert b"".join(each.data for each in chunks if isinstance(each, Chunk)) == b"text"
    assert isinstance(end, Exit)
    assert apart.gateway.metadata[0]["authorization"] == "Bearer secret"


def test_failures_retries_and_deadlines_are_those_of_the_async_client(
    blocking: Client, apart: Apart
) -> None:
    reason = ErrorReason.ERROR_REASON_WORKSPACE_NOT_FOUND
    apart.gateway.failures = [told(grpc.StatusCode.NOT_FOUND, reason)]
    with pytest.raises(status.NotFound) as caught:
        blocking.workspaces.get("none")
    assert caught.value.remedy == "Try another."
    apart.gateway.failures = [broken_off, broken_off]
    blocking.workspaces.create(id="demo")
    tries = apart.gateway.requests[1:]
    assert len(tries) == 3
    assert all(each == tries[0] for each in tries)
    assert apart.gateway.remaining[-1] == pytest.approx(605, abs=6)


def test_output_is_one_unbroken_stream_over_drops(blocking: Client, apart: Apart) -> None:
    apart.gateway.output, apart.gateway.fragile = OUTPUT, True
    events = blocking.workspaces.named("demo").executions.named("e").output()
    assert b"".join(each.data for each in events if isinstance(each, Chunk)) == OUTPUT


def test_a_reader_that_leaves_ends_the_call(blocking: Client, apart: Apart) -> None:
    apart.gateway.output = OUTPUT * 10_000
    with closing(blocking.workspaces.named("demo").executions.named("e").output()) as events:
        next(events)
    assert apart.left.wait(_BOUND)


async def _leave_a_stream(cove: AsyncClient) -> None:
    async for _ in cove.workspaces.named("demo").executions.named("e").output():
        break


async def _leave_a_call(cove: AsyncClient) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await cove.workspaces.get("demo")


@pytest.mark.parametrize("leave", [_leave_a_stream, _leave_a_call])
def test_what_was_broken_off_calls_no_loop_that_has_ended(
    apart: Apart,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    leave: Callable[[AsyncClient], Awaitable[None]],
) -> None:
    monkeypatch.setattr(connection, "_SETTLING", 0.5)  # Others may have the processors.

    async def lead() -> None:
        async with AsyncClient(apart.address) as cove:
            await leave(cove)

    async def never(context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await asyncio.Event().wait()

    apart.gateway.output = OUTPUT * 100
    with ThreadPoolExecutor(1) as thread:  # This one's loop is that of the tests.
        for _ in range(10):
            apart.gateway.failures = [never] if leave is _leave_a_call else []
            thread.submit(asyncio.run, lead()).result(_BOUND)
    # gRPC hands what comes for one loop to another, here to the double's.
    assert "Event loop is closed" not in caplog.text


def test_many_threads_may_share_one_client(blocking: Client, apart: Apart) -> None:
    apart.gateway.output = OUTPUT

    def read(number: int) -> tuple[str, bytes]:
        demo = blocking.workspaces.get(f"demo-{number}")
        return demo.id, demo.read("f")

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(read, range(200)))
    assert found == [(f"demo-{number}", OUTPUT) for number in range(200)]
    assert len(threads()) == 1


async def test_it_works_from_within_a_running_loop(apart: Apart) -> None:
    with Client(apart.address) as client:
        assert client.workspaces.get("demo").id == "demo"


def test_closing_ends_calls_and_streams_of_other_threads(apart: Apart) -> None:
    apart.gateway.silent = True
    client = Client(apart.address)
    demo = client.workspaces.named("demo")
    half_read = demo.files.download("f")
    apart.gateway.output = OUTPUT
    next(half_read)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(list, demo.executions.named("e").output())
        while len(apart.gateway.requests) < 2:
            assert not waiting.done()
        client.close()
        with pytest.raises(Closed):
            waiting.result(_BOUND)
    with pytest.raises(Closed):
        next(half_read)
    with pytest.raises(Closed):
        demo.refresh()
    client.close()
    assert threads() == []


def test_a_client_that_is_dropped_leaves_no_thread(apart: Apart) -> None:
    demo = Client(apart.address).workspaces.named("demo")
    events = demo.executions.named("e").output()
    apart.gateway.output = OUTPUT
    next(events)
    demo.refresh()
    assert len(threads()) == 1
    del demo, events
    gc.collect()
    assert threads() == []


def test_a_client_that_cannot_be_made_leaves_no_thread(tmp_path: Path) -> None:
    with pytest.raises(status.Unavailable, match="no suite runs"):
        Client(state=tmp_path)
    for thread in threads():
        thread.join(_BOUND)
    assert threads() == []


def test_a_call_from_the_clients_own_thread_is_refused() -> None:
    loop = Loop(nullcontext)

    async def inner() -> None:
        loop.run(asyncio.sleep(0))

    with pytest.raises(RuntimeError, match="own thread"):
        loop.run(inner())
    loop.close()


def test_no_task_is_left_behind(blocking: Client, apart: Apart) -> None:
    apart.gateway.output = OUTPUT

    async def tasks() -> int:
        return len(asyncio.all_tasks())

    loop = blocking._loop  # noqa: SLF001
    before = loop.run(tasks())
    for _ in range(20):
        demo = blocking.workspaces.get("demo")
        next(demo.executions.named("e").output())
        with pytest.raises(status.CoveError):
            demo.push()
    assert loop.run(tasks()) == before


_INTERRUPTED = """
import sys
from cove.sync import Client

client = Client(sys.argv[1])
client.workspaces.get("demo")
try:
    list(client.workspaces.named("demo").executions.named("e").output())
except KeyboardInterrupt:
    print("interrupted; still usable:", client.workspaces.get("demo").id)
"""

_UNCLOSED = """
import sys
from cove.sync import Client

demo = Client(sys.argv[1]).workspaces.named("demo")
events = demo.executions.named("e").output()
print(len(next(events).data))
"""


async def test_ctrl_c_cancels_the_call_in_progress(address: str, gateway: Gateway) -> None:
    gateway.silent = True
    process = await _started(_INTERRUPTED, address)
    async with asyncio.timeout(_BOUND):
        while len(gateway.requests) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGINT)
        await gateway.left.wait()
        stdout, stderr = await process.communicate()
    assert (stdout, stderr) == (b"interrupted; still usable: demo\n", b"")
    assert process.returncode == 0


async def test_a_program_may_end_without_closing(address: str, gateway: Gateway) -> None:
    gateway.output = OUTPUT
    process = await _started(_UNCLOSED, address)
    async with asyncio.timeout(_BOUND):
        stdout, stderr = await process.communicate()
    assert (stdout, stderr, process.returncode) == (b"10\n", b"", 0)


async def _started(program: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-Wdefault", "-c", program, *arguments,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
