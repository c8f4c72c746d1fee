"""Whatever bytes come: the agent serves on, and the reader of logs reads on."""

import asyncio
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import PROTOCOL_VERSION, formats, frames
from agent.client import AgentClient
from agent.record import Kind, LogReader, Record, Result
from tests.agent.node import Box, Node, close, command

EXAMPLES = int(os.environ.get("COVE_FUZZ_EXAMPLES", "300"))
"""Of each test in `make test-long`."""
FEW = 25
HEALTHY = (
    HealthCheck.function_scoped_fixture,
    HealthCheck.too_slow,
    HealthCheck.differing_executors,
)

numbers = st.sampled_from([0, 1, 9, 15, 255, 2**31, 2**63, 2**64, -1]) | st.integers(0, 99)
words = st.sampled_from(
    [
        b"",
        b"x",
        b"true",
        b"sh",
        b"-c",
        b"/workspace",
        b"../..",
        b"/proc/self/mem",
        b"\xff\0",
        b"A=b",
    ]
)
fields = st.lists(
    words | numbers.map(lambda each: b"%d" % each) | st.binary(max_size=40), max_size=12
)
payloads = fields.map(lambda each: frames.pack(*each)) | st.binary(max_size=200)
kinds = st.integers(0, 70) | st.integers(0, 255)


@st.composite
def sent(draw: st.DrawFn) -> tuple[bytes, int]:
    """What is sent at once, and with how many descriptors."""
    count = draw(st.integers(0, 5))
    payload, kind = draw(payloads), draw(kinds)
    size = draw(st.just(len(payload)) | st.integers(0, 2**32 - 1))
    told = draw(st.just(count) | st.integers(0, 255))
    header = frames.HEADER.pack(size, PROTOCOL_VERSION, kind, told, draw(st.integers(0, 9)))
    return draw(st.just(header + payload) | st.binary(min_size=1, max_size=300)), count


class Bystander:
    """A command that runs in the sandbox all the time, and a client that asks for it."""

    def __init__(self, box: Box, runner: asyncio.Runner) -> None:
        self.box = box
        self._runner = runner
        self._id = f"bystander-{secrets.token_hex(8)}"
        self._sinks = box.sinks(self._id)
        runner.run(self._start())

    async def _start(self) -> None:
        async with self.box.agent() as agent:
            await agent.start(self._id, command("sleep", "3600"), self._sinks)

    async def _look(self) -> None:
        async with AgentClient.connect(self.box.socket, self.box.node.sandbox_uid) as agent:
            listing = await agent.listing()
            assert any(
                each.execution_id == self._id and not each.ended for each in listing.executions
            )
            assert listing.processes >= 1

    def check(self) -> None:
        self._runner.run(self._look())

    def close(self) -> None:
        close(self._sinks)


@pytest.fixture
def bystander(node: Node) -> Iterator[Bystander]:
    with asyncio.Runner() as runner:
        sandbox = node.sandbox()
        made = Bystander(runner.run(sandbox.__aenter__()), runner)
        try:
            yield made
        finally:
            made.close()
            runner.run(sandbox.__aexit__(None, None, None))


def fuzz_agent(bystander: Bystander, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=HEALTHY, database=None)
    @given(st.lists(sent(), min_size=1, max_size=6), st.booleans())
    def play(messages: list[tuple[bytes, int]], leaves: bool) -> None:
        with ExitStack() as stack:
            peer = stack.enter_context(socket.socket(socket.AF_UNIX))
            peer.settimeout(0.05)
            peer.connect(str(bystander.box.socket))
            file = os.open("/dev/null", os.O_RDWR)
            stack.callback(os.close, file)
            with suppress(OSError):
                for data, count in messages:
                    socket.send_fds(peer, [data], [file] * count)
                while not leaves and peer.recv(1 << 16):
                    pass
        bystander.check()

    play()


def test_no_frame_disturbs_who_runs(bystander: Bystander) -> None:
    fuzz_agent(bystander, FEW)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_no_frame_ever_disturbs_who_runs(bystander: Bystander) -> None:
    fuzz_agent(bystander, EXAMPLES)


@st.composite
def logs(draw: st.DrawFn) -> bytes:
    """Records that follow each other as they should, or nearly."""
    data = formats.record(formats.KIND_START, 0, 1, 0, 1) + b"x"
    offset = 0
    for _ in range(draw(st.integers(0, 12))):
        kind = draw(st.sampled_from([1, 2, 2, 2, 3, 4]) | st.integers(0, 255))
        payload = draw(st.binary(max_size=60))
        if kind == formats.KIND_GAP and draw(st.booleans()):
            payload = formats.GAP.pack(draw(st.integers(0, 2**64 - 1)))
        stream = draw(st.sampled_from([1, 2]) if kind == 2 else st.sampled_from([0, 0, 9]))
        told = draw(st.just(offset) | st.integers(0, 2**64 - 1)) if draw(st.booleans()) else offset
        size = draw(st.just(len(payload)) | st.integers(0, 2**32 - 1))
        data += formats.record(kind, stream, draw(st.integers(0, 2**64 - 1)), told, size) + payload
        offset = min(offset + len(payload), 2**64 - 1)
    cut = draw(st.none() | st.integers(0, len(data)))
    return data[:cut]


def read_all(reader: LogReader, *, at_hand: bool = False) -> list[Record]:
    found: list[Record] = []
    while more := (at_hand and reader.at_hand(64)) or reader.read(64):
        found += more
    return found


def fuzz_log(path: Path, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=HEALTHY, database=None)
    @given(logs() | st.binary(max_size=400), st.integers(0, 300))
    def play(data: bytes, offset: int) -> None:
        path.write_bytes(data)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            reader = LogReader(descriptor)
            found = read_all(reader)
            assert reader.position <= len(data)
            at = 0
            for each in found:
                assert each.offset == at
                at += each.size
                if each.kind is Kind.EXIT:
                    with suppress(ValueError):
                        Result.decode(each.payload)
            assert at == reader.offset
            quick = LogReader(descriptor)
            assert read_all(quick, at_hand=True) == found
            assert (quick.position, quick.damage) == (reader.position, reader.damage)
            if torn := reader.torn():
                assert torn.offset == at
                assert data.endswith(torn.payload)
            sought = LogReader(descriptor)
            sought.seek(offset)
            begin = sought.position
            assert begin in {each.position for each in found} | {reader.position}
            assert read_all(sought) == [each for each in found if each.position >= begin]
        finally:
            os.close(descriptor)

    play()


def test_no_log_breaks_its_reader(tmp_path: Path) -> None:
    fuzz_log(tmp_path / "log", 2 * FEW)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_no_log_ever_breaks_its_reader(tmp_path: Path) -> None:
    fuzz_log(tmp_path / "log", 3 * EXAMPLES)
