"""Descriptors of the executor: none is left open, and none is closed while it is in use."""

import asyncio
import os
import resource
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import cast

import pytest

from agent import formats
from services.executor import output
from services.executor.agents import Agents
from services.executor.background import Background
from services.executor.errors import AgentUnavailable
from services.executor.files.drafts import Note
from services.executor.files.writing import Draft, Wish, Writer
from services.executor.logs import OpenLog
from services.executor.output import Outputs
from services.executor.record import Record, Spec
from services.executor.store import Store
from services.executor.watch import Watcher
from tests.executor.node import NODE, OWNER, Node, Sandbox, recorded

UID = "a" * 16
SPEC = Spec(argv=("true",), timeout_ns=10**9)


def opened(folder: Path) -> list[Path]:
    """What this process has open below it; threads of others open and close more beside it."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(each.readlink())
    return [each for each in found if each.is_relative_to(folder)]


@contextmanager
def only(free: int) -> Iterator[None]:
    """No more than so many descriptors can be opened."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    null = [os.open("/dev/null", os.O_RDONLY) for _ in range(free + 1)]
    for each in null:
        os.close(each)
    resource.setrlimit(resource.RLIMIT_NOFILE, (null[-1], limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture
async def outputs(tmp_path: Path) -> AsyncIterator[Outputs]:
    with Watcher.open() as watcher:
        yield Outputs(Store(tmp_path / "executions"), watcher, 10.0)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Of an execution that has written much."""
    with recorded(Store(tmp_path / "executions"), UID, "one", SPEC, 1) as made:
        with (made.folder / "log").open("ab") as log:
            log.write(formats.record(formats.KIND_START, 0, 1, 0, 0))
            for number in range(8):
                size = 64 << 10
                log.write(formats.record(formats.KIND_CHUNK, 1, 2, number * size, size))
                log.write(bytes(size))
        return made


@pytest.mark.parametrize("call", ["seek", "read"])
async def test_a_log_stays_open_while_a_thread_reads_it(
    outputs: Outputs, record: Record, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    go_on, reading = threading.Event(), asyncio.Event()
    loop, ours = asyncio.get_running_loop(), getattr(OpenLog, call)
    places: list[Path] = []

    def slow(log: OpenLog, size: int) -> object:
        places.append(Path(f"/proc/self/fd/{log.descriptor}"))
        loop.call_soon_threadsafe(reading.set)
        assert go_on.wait(20)
        return ours(log, size)

    async def read() -> None:
        offset = 100_000 if call == "seek" else 0
        async with aclosing(outputs.batches(record, offset, follow=False)) as batches:
            await anext(batches)

    monkeypatch.setattr(OpenLog, call, slow)
    monkeypatch.setattr(OpenLog, "at_hand", lambda _log, _size: [])
    monkeypatch.setattr(output, "_PIECE", 1)
    task = asyncio.ensure_future(read())
    await reading.wait()
    for _ in range(2):  # Whoever is in a hurry cancels again.
        task.cancel()
        await asyncio.wait((task,), timeout=0.05)
    try:
        assert places[0].readlink() == record.folder / "log"
    finally:
        go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not places[0].exists()


async def test_a_file_stays_open_until_a_thread_has_written_it(tmp_path: Path) -> None:
    """Else what is written may go into the file that has the number next."""
    go_on = threading.Event()
    descriptor = os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY)
    wish = Wish(uid=UID, path=b"file")
    draft = Draft(cast("Writer", None), wish, b"file", b"beside", descriptor, cast("Note", None))
    with ThreadPoolExecutor(1) as threads:
        asyncio.get_running_loop().set_default_executor(threads)
        threads.submit(go_on.wait, 20)
        task = asyncio.ensure_future(draft.write(b"content"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,), timeout=0.05)
        done = task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    os.close(descriptor)
    assert not done
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_draft_that_cannot_be_made_leaves_nothing_open(tmp_path: Path) -> None:
    store = Store(tmp_path / "executions")
    for free in range(3):
        with only(free), pytest.raises(OSError, match="Too many open files"):
            store.draft(UID)
        assert not opened(tmp_path)
    store.draft(UID).close()


def test_a_log_that_cannot_be_opened_leaves_nothing_open(record: Record) -> None:
    with only(1), pytest.raises(OSError, match="Too many open files"):
        OpenLog(record.folder)
    assert not opened(record.folder)


async def test_who_can_open_no_connection_is_to_ask_again(node: Node, box: Sandbox) -> None:
    async with Background.open() as background:
        agents = Agents(node.runtime, NODE, OWNER, background)
        with only(0), pytest.raises(AgentUnavailable):
            async with agents.awake(box.uid):
                pass
        async with agents.awake(box.uid) as agent:
            assert agent.pid
