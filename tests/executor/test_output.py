"""ReadOutput and the output in Execute: every byte, any offset, any reader."""

import asyncio
import hashlib
import os
import random
import uuid
from pathlib import Path

import grpc
import pytest

from cove.errors.v1.errors_pb2 import ErrorReason as Why
from cove.executor.v1 import executor_pb2 as pb
from tests.executor.node import Caller, Node, Sandbox, calling, refused

Code = grpc.StatusCode

# Every byte tells its place, so that a wrong one is seen.
NOISE = """
import os, sys
block = b"".join(n.to_bytes(4, "big") for n in range(65536))
for _ in range(int(sys.argv[1])):
    os.write(1, block)
"""


def noise(blocks: int) -> bytes:
    return b"".join(n.to_bytes(4, "big") for n in range(65536)) * blocks


async def test_binary_output_comes_back_as_it_was(caller: Caller, box: Sandbox) -> None:
    (box.tree / "all").write_bytes(bytes(range(256)))
    done = await caller.execute(box, "cat all; cat all >&2")
    assert done.stdout.data == done.stderr.data == bytes(range(256))


async def test_merged_streams_are_in_order(caller: Caller, box: Sandbox) -> None:
    script = "for i in 1 2 3 4 5; do echo o$i; echo e$i >&2; done"
    done = await caller.execute(box, script, merge_stderr=True)
    assert done.stdout.text == "".join(f"o{i}\ne{i}\n" for i in range(1, 6))


async def test_the_answer_is_bounded_and_says_so(caller: Caller, box: Sandbox) -> None:
    done = await caller.execute(box, "yes | head -c 3000000; echo short >&2")
    assert len(done.stdout.text) == 1 << 20
    assert done.stdout.truncated
    assert (done.stderr.text, done.stderr.truncated) == ("short\n", False)
    assert done.execution.output_bytes == 3_000_006


async def test_a_character_cut_by_the_bound_leaves_a_text(caller: Caller, box: Sandbox) -> None:
    (box.tree / "text").write_text("x" + "€" * 400_000)
    done = await caller.execute(box, "cat text")
    assert done.stdout.WhichOneof("content") == "text"
    assert done.stdout.text == "x" + "€" * (((1 << 20) - 1) // 3)
    whole = await caller.execute(box, "printf '\\342\\202'")
    assert whole.stdout.WhichOneof("content") == "data"


async def test_any_offset_gives_the_rest(caller: Caller, box: Sandbox) -> None:
    (box.tree / "noise.py").write_text(NOISE)
    expected = noise(8)
    await caller.start(box, "one", "python3 noise.py 8")
    assert await caller.output(box, "one") == expected
    places = random.Random(1)
    for offset in [1, len(expected), *(places.randrange(len(expected)) for _ in range(12))]:
        assert await caller.output(box, "one", offset) == expected[offset:]
    for tail in (1, 4096, len(expected), len(expected) + 1):
        assert await caller.output(box, "one", -tail) == expected[-tail:]
    async with refused(Code.OUT_OF_RANGE, Why.ERROR_REASON_OFFSET_OUT_OF_RANGE):
        await caller.output(box, "one", len(expected) + 1)


async def test_a_cut_reader_resumes_where_it_was(caller: Caller, box: Sandbox) -> None:
    script = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done"
    await caller.start(box, "one", script)
    data, places = bytearray(), random.Random(2)
    ended = False
    while not ended:
        chunks = places.randrange(1, 4)
        call = caller.read(box, "one", len(data))
        async for event in call:
            ended = event.WhichOneof("event") == "exit"
            data += event.chunk.data[: places.randrange(1, 200)]
            chunks -= 1
            if chunks <= 0 or event.chunk.offset + len(event.chunk.data) != len(data):
                break
        call.cancel()
    assert data.decode() == "".join(f"line {i}\n" for i in range(300))


async def test_batches_hold_what_comes_without_them(caller: Caller, box: Sandbox) -> None:
    (box.tree / "noise.py").write_text(NOISE)
    script = "for i in 1 2 3; do python3 noise.py 2; echo e$i >&2; done"
    await caller.start(box, "one", script)
    await caller.wait(box, "one")
    for offset in (0, 100_000, -300_000):
        plain = [event async for event in caller.read(box, "one", offset)]
        batched = [event async for event in caller.read(box, "one", offset, batched=True)]
        chunks = [chunk for event in batched for chunk in event.chunks.chunks]
        assert chunks == [event.chunk for event in plain[:-1]]
        assert batched[-1] == plain[-1]
        assert len(batched) < len(plain) * 3 / 4
        assert max(len(chunk.data) for chunk in chunks) <= 64 << 10
        assert max(event.chunks.ByteSize() for event in batched) < 132 << 10


async def test_how_output_is_told_makes_no_other_start(caller: Caller, box: Sandbox) -> None:
    request_id, names = str(uuid.uuid4()), set()
    for batched in (True, False, True):
        request = pb.StreamExecutionRequest(
            handle=box.handle,
            spec=pb.ExecutionSpec(script="echo once >> count; echo said"),
            request_id=request_id,
            batched=batched,
        )
        call = caller.executions.StreamExecution(request, timeout=50)
        events = [event async for event in call if not event.HasField("heartbeat")]
        assert [event.WhichOneof("event") for event in events] == [
            *("execution", "chunks" if batched else "chunk", "exit")
        ]
        names.add(events[0].execution.name)
    assert len(names) == 1
    assert (box.tree / "count").read_text() == "once\n"


async def test_followers_all_see_the_same(caller: Caller, box: Sandbox) -> None:
    script = "for i in 1 2 3 4 5 6; do echo $i; echo e$i >&2; sleep 0.03; done"
    await caller.start(box, "one", script)
    seen = await asyncio.gather(*(caller.output(box, "one") for _ in range(8)))
    assert len(set(seen)) == 1
    assert len(seen[0]) == 6 * 5


async def test_without_follow_the_stream_ends_at_what_is_there(
    caller: Caller, box: Sandbox
) -> None:
    await caller.start(box, "one", "echo here; sleep 60")
    async for event in caller.read(box, "one"):
        if event.WhichOneof("event") == "chunk":
            break
    events = [event async for event in caller.read(box, "one", follow=False)]
    assert [event.WhichOneof("event") for event in events] == ["chunk", "end"]
    assert events[-1].end.offset == 5


async def test_silence_is_filled_with_heartbeats(caller: Caller, box: Sandbox) -> None:
    await caller.start(box, "one", "echo x; until [ -e go ]; do sleep 0.02; done")
    kinds: list[str | None] = []
    async for event in caller.read(box, "one"):
        kinds.append(event.WhichOneof("event"))
        if kinds[-3:] == ["chunk", "heartbeat", "heartbeat"]:
            (box.tree / "go").touch()
    assert kinds.count("chunk") == 1
    assert kinds[-1] == "exit"


async def test_output_of_nothing_is_not_found(caller: Caller, box: Sandbox) -> None:
    async with refused(Code.NOT_FOUND, Why.ERROR_REASON_EXECUTION_NOT_FOUND):
        await caller.output(box, "none")


async def test_a_removed_execution_ends_its_readers(caller: Caller, box: Sandbox) -> None:
    await caller.start(box, "one", "echo x; sleep 60")
    call = caller.read(box, "one")
    async for event in call:
        if event.WhichOneof("event") == "chunk":
            break
    request = pb.DeleteExecutionRequest(name=box.name("one"), force=True)
    await caller.executions.DeleteExecution(request)
    ends = set()
    try:
        async for event in call:
            ends.add(event.WhichOneof("event"))
    except grpc.aio.AioRpcError as error:
        ends.add(error.code().name)
    assert ends & {"exit", "NOT_FOUND"}


@pytest.mark.parametrize("damage", ["garbage", "cut", "hole"])
async def test_a_damaged_log_is_a_visible_gap(
    node: Node, caller: Caller, box: Sandbox, damage: str
) -> None:
    script = "echo first; until [ -e go ]; do sleep 0.01; done; echo second"
    await caller.start(box, "one", script)
    async for event in caller.read(box, "one"):
        if event.WhichOneof("event") == "chunk":  # Else both may be one record.
            break
    (box.tree / "go").touch()
    ended = await caller.wait(box, "one")
    log = node.state / "executor" / "executions" / box.uid / "one" / "log"
    data = log.read_bytes()
    place = data.index(b"first\n") + 6
    with log.open("r+b") as file:
        if damage == "cut":
            file.truncate(place)
        elif damage == "hole":
            file.truncate(place)
            file.truncate(1 << 40)
        else:
            file.seek(place)
            file.write(os.urandom(len(data) - place + 100))
    events = [event async for event in caller.read(box, "one")]
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["chunk", "gap", "exit"]
    gap = events[1].gap
    assert (getattr(gap, "from"), gap.to) == (6, ended.output_bytes)
    assert gap.reason == pb.Gap.REASON_DAMAGED


async def test_a_slow_reader_grows_no_memory_and_stops_nothing(node: Node, box: Sandbox) -> None:
    (box.tree / "noise.py").write_text(NOISE)
    with node.process() as process:
        async with calling(process.address) as caller:
            await caller.execute(box, "true")
            before = resident(process.pid)
            await caller.start(box, "one", "python3 noise.py 400")
            call = caller.read(box, "one")
            async for event in call:
                if event.WhichOneof("event") == "chunk":
                    break
            ended = await caller.wait(box, "one")  # Though nobody reads on.
            assert ended.output_bytes == 400 << 18
            assert resident(process.pid) - before < 24 << 20
            digest = hashlib.sha256(event.chunk.data)
            async for event in call:
                digest.update(event.chunk.data)
            assert digest.digest() == hashlib.sha256(noise(400)).digest()
            assert resident(process.pid) - before < 24 << 20


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no such process")
