"""The formats on disk, read from whatever bytes."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import formats
from agent.handle import Handle
from agent.inside.log import Log
from agent.record import BLANK_RESULT, Damage, ExitKind, Kind, LogReader, Record, Result, Stream

RESULT = Result(
    kind=ExitKind.CANCELLED,
    number=15,
    text="ada",
    start_ns=1,
    end_ns=2,
    user_cpu_us=3,
    system_cpu_us=4,
    peak_memory_kib=5,
    output_bytes=6,
    dropped_bytes=7,
)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[int, int]]:
    log = os.open(tmp_path / "log", os.O_RDWR | os.O_APPEND | os.O_CREAT)
    result = os.open(tmp_path / "result", os.O_RDWR | os.O_CREAT)
    os.pwrite(result, BLANK_RESULT, 0)
    yield log, result
    os.close(log)
    os.close(result)


def written(files: tuple[int, int]) -> bytes:
    log = Log(*files)
    log.start(b"x")
    log.chunk(1, b"hello")
    log.chunk(2, b"world!")
    log.finish((1, 0, 3, 10, 20, 1, 2, 3), b"")
    return os.pread(files[0], 1 << 20, 0)


def replaced(log: int, data: bytes) -> LogReader:
    os.ftruncate(log, 0)
    os.write(log, data)
    return LogReader(log)


def test_records_come_back_as_they_were_written(files: tuple[int, int]) -> None:
    written(files)
    reader = LogReader(files[0])
    start, first, second, end = reader.read()
    assert (start.kind, first.kind, second.kind, end.kind) == (
        Kind.START,
        Kind.CHUNK,
        Kind.CHUNK,
        Kind.EXIT,
    )
    assert (first.stream, first.offset, first.payload) == (Stream.STDOUT, 0, b"hello")
    assert (second.stream, second.offset, second.payload) == (Stream.STDERR, 5, b"world!")
    result = Result.decode(end.payload)
    assert result is not None
    assert (result.number, result.output_bytes) == (3, 11)
    assert Result.decode(os.pread(files[1], 4096, 0)) == result
    assert (reader.read(), reader.damage, reader.offset) == ([], Damage.NONE, 11)


@pytest.mark.parametrize(
    ("offset", "found"), [(0, b"hello"), (4, b"hello"), (5, b"world!"), (10, b"world!"), (11, b"")]
)
def test_seek_finds_the_chunk_that_holds_an_offset(
    files: tuple[int, int], offset: int, found: bytes
) -> None:
    written(files)
    reader = LogReader(files[0])
    reader.seek(offset)
    first = next(each for each in reader.read() if each.kind is not Kind.START)
    assert (first.payload if first.kind is Kind.CHUNK else b"") == found


def test_a_log_cut_anywhere_gives_a_prefix(files: tuple[int, int]) -> None:
    whole = written(files)
    for size in range(len(whole)):
        reader = replaced(files[0], whole[:size])
        records = reader.read()
        chunks = [each.payload for each in records if each.kind is Kind.CHUNK]
        torn = reader.torn()
        assert b"helloworld!".startswith(b"".join(chunks) + (torn.payload if torn else b""))
        assert reader.damage in (Damage.NONE, Damage.TORN)


def test_no_bytes_break_the_reader(files: tuple[int, int]) -> None:
    whole = written(files)
    dice = random.Random(1)
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 6)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        reader = replaced(files[0], bytes(data) + dice.randbytes(dice.randrange(40)))
        read: list[Record] = []
        while more := reader.read():
            read += more
        reader.torn()
        LogReader(files[0]).seek(dice.randrange(100))
        assert reader.position <= len(data) + 40
        for record in read:
            if record.kind is Kind.EXIT:
                decoded(record.payload)


def test_what_is_not_in_memory_is_not_at_hand(tmp_path: Path) -> None:
    """And is never taken for the end of the log."""
    path = tmp_path / "log"
    files = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT), os.open(path, os.O_RDONLY)
    log = Log(*files)
    log.start(b"x")
    dice = random.Random(3)
    for _ in range(40):
        log.chunk(1, dice.randbytes(dice.choice((1, 1000, formats.MAX_RECORD))))
    os.fsync(files[0])
    whole = LogReader(files[1]).read(1 << 40)
    for keep in (0, 1 << 20, 3 << 20):
        os.posix_fadvise(files[1], 0, 0, os.POSIX_FADV_DONTNEED)
        os.pread(files[1], keep, 0)
        reader = LogReader(files[1])
        found: list[Record] = []
        while more := reader.at_hand(1 << 16) or reader.read(1 << 16):
            found += more
        assert found == whole
    for each in files:
        os.close(each)


@pytest.mark.parametrize("kind", [Kind.START, Kind.GAP])
def test_records_that_hold_no_output_cannot_be_without_end(
    files: tuple[int, int], kind: Kind
) -> None:
    whole = written(files)
    start = whole[: formats.RECORD.size + 1]
    payload = bytes(formats.GAP.size) if kind is Kind.GAP else b""
    nothing = formats.record(kind, 0, 1, 0, len(payload)) + payload
    reader = replaced(files[0], start + nothing * 1000)
    assert [each.kind for each in reader.read()] == [Kind.START]
    assert reader.damage is Damage.CORRUPT


def decoded(data: bytes) -> Result | None:
    try:
        return Result.decode(data)
    except ValueError:
        return None


def test_a_result_survives_the_trip_and_nothing_else_does() -> None:
    block = RESULT.encode()
    assert len(block) == formats.RESULT_SIZE
    assert Result.decode(block) == RESULT
    assert Result.decode(BLANK_RESULT) is None
    size = len(block.rstrip(b"\0"))
    for at in range(size):
        broken = bytearray(block)
        broken[at] ^= 0x55
        with pytest.raises(ValueError, match=r"."):
            Result.decode(bytes(broken))
        if at:
            with pytest.raises(ValueError, match=r"."):
                Result.decode(block[:at])


def test_a_handle_comes_back() -> None:
    handle = Handle(driver="local", node="n1", uid="a" * 16, generation=3)
    assert Handle.decode(handle.encode()) == handle


@pytest.mark.parametrize(
    "data", [b"", b"x", b"\xff" * 9, b"a" * 600, Handle(driver="l", node="n", uid="../x").encode()]
)
def test_what_is_no_handle_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Handle.decode(data)
