"""Output that is kept no longer: readers see a gap, and never anything else in its place."""

import asyncio
import os
import random
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent import formats
from agent.record import Damage
from cove.executor.v1 import executor_pb2 as pb
from services.executor import hole
from services.executor.hole import Hole
from services.executor.logs import Left, OpenLog
from services.executor.retention import Retention, Trimmer, punches
from services.executor.store import Store
from tests.executor.node import Caller, Node, Sandbox, until

_KIB = 1 << 10
_MIB = 1 << 20
_LINE = 10

FLOOD = "seq -f %09.0f 0 {}"


def _expected(offset: int, size: int) -> bytes:
    """What the flood has written there."""
    first, last = offset // _LINE, (offset + size) // _LINE
    text = b"".join(b"%09d\n" % line for line in range(first, last + 1))
    return text[offset - first * _LINE :][:size]


@pytest.fixture
async def small(node: Node) -> AsyncIterator[Caller]:
    limits = {"execution": 2 * _MIB, "head": 64 * _KIB, "environment": 4 * _MIB}
    fields = {f"retention_{name}": value for name, value in limits.items()}
    async with node.executor(**fields) as caller:
        yield caller


async def _checked(events: Any, begin: int, pause: float = 0.0) -> tuple[list[pb.Gap], pb.Exit]:
    """Every byte that comes is right, and what does not come is told."""
    at, gaps = begin, []
    async for event in events:
        match event.WhichOneof("event"):
            case "chunk":
                assert event.chunk.offset == at
                assert event.chunk.data == _expected(at, len(event.chunk.data))
                at += len(event.chunk.data)
            case "gap":
                assert getattr(event.gap, "from") == at
                assert event.gap.reason == pb.Gap.REASON_RETENTION
                gaps.append(event.gap)
                at = event.gap.to
            case "exit":
                assert at == event.exit.output_bytes
                return gaps, event.exit
        await asyncio.sleep(pause)
    raise AssertionError("no exit")


async def _flooded(small: Caller, node: Node, box: Sandbox, megabytes: int, slow: str) -> None:
    lines = megabytes * _MIB // _LINE
    wait = "until [ -e go ]; do sleep 0.05; done"  # It is trimmed while it runs.
    await small.start(box, "flood", f"{slow}; {FLOOD.format(lines)}; {wait}")
    await until(lambda: _wrote(small, box, _LINE + 1))
    readers = [
        asyncio.create_task(_checked(small.read(box, "flood", begin), begin, pause))
        for begin in (0, 3)
        for pause in (0.0, 0.003)
    ]
    log = Store(node.state / "executor" / "executions").folder(box.uid, "flood") / "log"

    async def trimmed() -> bool:
        return log.stat().st_blocks * 512 < 3 * _MIB

    await until(lambda: _wrote(small, box, (lines + 1) * _LINE), 250)
    await until(trimmed)
    (box.tree / "go").touch()
    end = await small.wait(box, "flood")
    assert end.output_bytes == (lines + 1) * _LINE
    for gaps, _ in await asyncio.gather(*readers):
        assert all(getattr(gap, "from") >= 64 * _KIB for gap in gaps[:1])
    assert await trimmed()
    whole, _ = await _checked(small.read(box, "flood"), 0)
    assert len(whole) == 1
    first, last = getattr(whole[0], "from"), whole[0].to
    assert 64 * _KIB <= first < _MIB
    assert end.output_bytes - last > 512 * _KIB
    middle = (first + last) // 2
    for begin in (first - 7, first, middle, last - 1, last, last + 7, end.output_bytes):
        gaps, _ = await _checked(small.read(box, "flood", begin), begin)
        assert sum(gap.to - getattr(gap, "from") for gap in gaps) == max(
            0, last - max(begin, first)
        )
    tail, _ = await _checked(small.read(box, "flood", -50), end.output_bytes - 50)
    assert tail == []


async def _wrote(small: Caller, box: Sandbox, least: int) -> bool:
    return (await small.get(box, "flood")).output_bytes >= least


async def test_the_middle_goes(small: Caller, node: Node, box: Sandbox) -> None:
    await _flooded(small, node, box, 8, "true")


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_the_middle_of_much_goes(small: Caller, node: Node, box: Sandbox) -> None:
    await _flooded(small, node, box, 300, "sleep 1")


async def test_the_oldest_lose_theirs_first(small: Caller, node: Node, box: Sandbox) -> None:
    lines = 3 * _MIB // 2 // _LINE
    for name in ("a", "b", "c", "d"):
        await small.start(box, name, FLOOD.format(lines))
        await small.wait(box, name)

    async def gaps_of(name: str) -> list[pb.Gap]:
        return (await _checked(small.read(box, name), 0))[0]

    async def dropped() -> bool:
        return bool(await gaps_of("b"))

    await small.start(box, "runs", "sleep 30")
    await until(dropped)
    for name in ("a", "b"):
        (gap,) = await gaps_of(name)
        assert (getattr(gap, "from"), gap.to) == (0, (lines + 1) * _LINE)
        assert (await small.get(box, name)).exit.code == 0
    assert await gaps_of("c") == await gaps_of("d") == []
    again = await small.start(box, "a", FLOOD.format(lines))
    assert again.state == pb.Execution.STATE_ENDED  # An id runs one command, ever.


async def test_what_ended_long_ago_is_removed(node: Node, caller: Caller, box: Sandbox) -> None:
    await caller.execute(box, "true")
    await caller.start(box, "old", "echo x")
    await caller.wait(box, "old")
    await caller.start(box, "runs", "sleep 100")
    store = Store(node.state / "executor" / "executions")
    broken = store.folder(box.uid, "broken")
    shutil.copytree(store.folder(box.uid, "old"), broken)
    (broken / "spec").write_text("{")
    for name in ("broken", "old", "runs"):
        os.utime(store.folder(box.uid, name) / "end", (1, 1))
    async with node.executor() as other:

        async def gone() -> bool:
            try:
                await other.get(box, "old")
            except grpc.aio.AioRpcError as error:
                return error.code() is grpc.StatusCode.NOT_FOUND
            return False

        await until(gone)
        assert (await other.get(box, "runs")).state == pb.Execution.STATE_RUNNING


def _log(folder: Path, sizes: list[int]) -> bytes:
    """A log with records of these sizes, and what is in it."""
    output = b""
    with (folder / "log").open("wb") as file:
        file.write(formats.record(formats.KIND_START, 0, 1, 0, 0))
        for size in sizes:
            data = _expected(len(output), size)
            file.write(formats.record(formats.KIND_CHUNK, 1, 1, len(output), size) + data)
            output += data
    return output


def _trimmer(head: int) -> Trimmer:
    retention = Retention(
        execution_bytes=0, head_bytes=head, environment_bytes=0, age_ns=0, holes=True
    )
    unused: Any = None
    return Trimmer(store=unused, keeper=unused, retention=retention)


def _all(folder: Path) -> tuple[bytes, list[Left]]:
    log = OpenLog(folder)
    try:
        found: list[Any] = []
        while more := log.read(1 << 40):
            found += more
        left = [each for each in found if isinstance(each, Left)]
        return b"".join(b"" if isinstance(e, Left) else e.payload for e in found), left
    finally:
        log.close()


@pytest.mark.parametrize("size", [1, 100, 5000, 200_000])
def test_holes_are_between_records(tmp_path: Path, size: int) -> None:
    if not punches(tmp_path):
        pytest.skip("this file system takes back no part of a file")
    output = _log(tmp_path, [size] * min(3000, 1_500_000 // (size + 24)))
    whole = (tmp_path / "log").stat().st_size
    for most in (whole * 2 // 3, whole // 2, whole // 2):
        _trimmer(3_000).trim(tmp_path, most)
        data, (left,) = _all(tmp_path)
        assert data == output[: left.offset] + output[left.offset + left.size :]
        assert (tmp_path / "log").stat().st_blocks * 512 <= most + 3 * 4096


def test_a_kill_between_note_and_hole(tmp_path: Path) -> None:
    output = _log(tmp_path, [1000] * 1000)
    log = OpenLog(tmp_path)
    log.seek(100_000)
    begin = log.position, log.offset
    log.seek(900_000)
    with hole.noting(tmp_path) as held:
        assert held is not None
        hole.note(held, Hole(begin[0], log.position, begin[1], log.offset))
    before = _all(tmp_path)
    assert before[1] == [Left(100_000, 800_000)]
    _trimmer(10_000).trim(tmp_path, 500_000)
    assert (tmp_path / "log").stat().st_blocks * 512 < 300_000
    assert _all(tmp_path) == before
    assert before[0] == output[:100_000] + output[900_000:]
    log.go(*begin)
    assert log.read() != []
    log.close()


def test_a_note_that_was_cut_short_is_none(tmp_path: Path) -> None:
    with hole.noting(tmp_path) as held:
        assert held is not None
        for end in (10, 20, 30):
            hole.note(held, Hole(1, end, 1, end))
            note = os.pread(held, hole.SIZE, 0)
            assert hole.read(held).end == end
        for at in (3, 515):
            os.pwrite(held, b"\x55", at)
            assert hole.read(held).end in (20, 30)
            os.pwrite(held, note, 0)
        with hole.noting(tmp_path) as second:
            assert second is None


def test_damage_is_given_back_too(tmp_path: Path) -> None:
    _log(tmp_path, [1000] * 10)
    with (tmp_path / "log").open("ab") as file:
        file.write(random.Random(1).randbytes(1_000_000))
    _trimmer(1_000).trim(tmp_path, 100_000)
    assert (tmp_path / "log").stat().st_blocks * 512 < 100_000
    log = OpenLog(tmp_path)
    assert len(log.read()) == 11
    assert log.damage is Damage.CORRUPT
    log.close()


def test_readers_race_with_the_hole(tmp_path: Path) -> None:
    """Whatever is punched at whatever moment: what is read is right, or told as left out."""
    sizes = [random.Random(7).randrange(1, 3000) for _ in range(2000)]
    output = _log(tmp_path, sizes)
    trimmer, over = _trimmer(10_000), threading.Event()

    def trim() -> None:
        for most in range(len(output), 200_000, -60_000):
            trimmer.trim(tmp_path, most)
        over.set()

    trimming = threading.Thread(target=trim)
    trimming.start()
    rounds = 0
    try:
        while not over.is_set() or rounds < 3:
            rounds += 1
            log = OpenLog(tmp_path)
            begin = at = random.randrange(len(output))
            log.seek(begin)
            while records := log.read(random.choice([1, 5_000, 100_000])):
                for each in records:
                    end = each.offset + each.size
                    if not isinstance(each, Left) and end > at:
                        assert each.payload == output[each.offset : end]
                    assert each.offset <= at
                    at = max(at, end)
            assert at == len(output)
            log.close()
    finally:
        trimming.join()
