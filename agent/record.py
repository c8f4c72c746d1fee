"""Reads what an agent wrote: the output log and the result file. Survives any bytes."""

import os
from binascii import crc32
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from typing import Final

from agent import LOG_VERSION, formats
from agent.messages import MOST_INPUT, InputState
from agent.sources import Ahead, Exactly, InMemory, Source

_LONGEST_BODY: Final = formats.RESULT_BODY.size + formats.MAX_TEXT
_COUNTS: Final = (
    "start_ns",
    "end_ns",
    "user_cpu_us",
    "system_cpu_us",
    "peak_memory_kib",
    "output_bytes",
    "dropped_bytes",
)
_LONGEST_RECORD: Final = formats.RECORD.size + formats.MAX_RECORD


class Kind(IntEnum):
    START = formats.KIND_START
    CHUNK = formats.KIND_CHUNK
    GAP = formats.KIND_GAP
    EXIT = formats.KIND_EXIT
    PREVIEW = formats.KIND_PREVIEW


class Stream(IntEnum):
    NONE = 0
    STDOUT = formats.STDOUT
    STDERR = formats.STDERR
    TERMINAL = formats.TERMINAL


class ExitKind(IntEnum):
    CODE = formats.EXIT_CODE
    SIGNAL = formats.EXIT_SIGNAL
    TIMED_OUT = formats.EXIT_TIMED_OUT
    CANCELLED = formats.EXIT_CANCELLED
    LIMITED = formats.EXIT_LIMITED


class Damage(Enum):
    """What stands behind the last whole record."""

    NONE = auto()
    TORN = auto()
    """Part of a record. The agent is at it, or was killed at it."""
    CORRUPT = auto()
    """No record: nothing after it can be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record of the log."""

    kind: Kind
    stream: Stream
    time_ns: int
    position: int
    """Where the record begins in the file."""
    offset: int
    """Bytes of output before this record."""
    size: int
    """Bytes of output it stands for: of a CHUNK what `payload` holds, of a GAP what was lost."""
    payload: bytes
    """Of a CHUNK or PREVIEW the output, of an EXIT what `Result.decode` reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How an execution ended."""

    kind: ExitKind
    number: int
    """The exit code, or the signal. Of any other end: what the process made of it."""
    core_dumped: bool = False
    text: str = ""
    """`timeout` or `idle_output` of a timeout, who cancelled of a cancel, which limit was met."""
    start_ns: int = 0
    end_ns: int = 0
    user_cpu_us: int = 0
    system_cpu_us: int = 0
    peak_memory_kib: int = 0
    output_bytes: int = 0
    """Offset at the end: all output, also what was dropped."""
    dropped_bytes: int = 0
    """Output that could not be written, as the disk was full."""

    def encode(self) -> bytes:
        """The whole block of a result file."""
        body = (
            self.kind,
            self.core_dumped,
            self.number,
            self.start_ns,
            self.end_ns,
            self.user_cpu_us,
            self.system_cpu_us,
            self.peak_memory_kib,
            self.output_bytes,
            self.dropped_bytes,
        )
        data = formats.result(LOG_VERSION, body, self.text.encode())
        return data.ljust(formats.RESULT_SIZE, b"\0")

    @classmethod
    def decode(cls, data: bytes) -> "Result | None":
        """None when nothing was written yet. Raises ValueError when it is no whole result."""
        if not data[: formats.RESULT_HEADER.size].strip(b"\0"):
            return None
        if len(data) < formats.RESULT_HEADER.size:
            raise ValueError("result cut short")
        magic, version, size, checksum = formats.RESULT_HEADER.unpack_from(data)
        if magic != formats.RESULT_MAGIC or version != LOG_VERSION:
            raise ValueError("result of an unknown version")
        body = data[formats.RESULT_HEADER.size : formats.RESULT_HEADER.size + size]
        if not formats.RESULT_BODY.size <= size <= _LONGEST_BODY or len(body) != size:
            raise ValueError("result cut short")
        if crc32(body) != checksum:
            raise ValueError("result does not match its checksum")
        kind, core, number, *counts = formats.RESULT_BODY.unpack_from(body)
        return cls(
            kind=ExitKind(kind),
            number=number,
            core_dumped=bool(core),
            text=body[formats.RESULT_BODY.size :].decode(errors="replace"),
            **dict(zip(_COUNTS, counts, strict=True)),
        )


def input_of(block: bytes) -> InputState | None:
    """How far the input came of an execution that has ended; None when it had none."""
    note = block[formats.RESULT_SIZE - formats.INPUT.size : formats.RESULT_SIZE]
    if len(note) < formats.INPUT.size:
        return None
    magic, taken, closed, _ = formats.INPUT.unpack(note)
    if magic != formats.INPUT_MAGIC or note != formats.input_note(taken, closed=bool(closed)):
        return None
    return InputState(min(taken, MOST_INPUT), bool(closed))


BLANK_RESULT: Final = bytes(formats.RESULT_SIZE)
"""What the executor writes, and syncs, before the start."""


class LogReader:
    """Follows one log from a place on. Not shared between readers; the descriptor may be."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.position = 0
        """Where the next record begins in the file."""
        self.offset = 0
        """Bytes of output before it."""
        self.damage = Damage.NONE
        """What stands behind the last record that was read."""

    def seek(self, offset: int) -> None:
        """Go on to the record that holds the byte at `offset`, or to the exit, or to the end.

        Reads headers only. Never goes back.
        """
        while found := self._next():
            record, end = found
            if record.kind is Kind.EXIT or record.offset + record.size > offset:
                return
            self.position, self.offset = end, record.offset + record.size

    def read(self, most: int = 1 << 20) -> list[Record]:
        """The whole records that follow, about `most` bytes; none when there is no more yet."""
        return self._read(Ahead(self._descriptor), most)

    def at_hand(self, most: int) -> list[Record]:
        """As `read`, of what is in memory: never waits for a disk.

        None, too, where it would have to, or where the kernel cannot tell.
        """
        size = max(most, _LONGEST_RECORD)
        return self._read(InMemory(self._descriptor, self.position, size), size)

    def _read(self, source: Source, most: int) -> list[Record]:
        records: list[Record] = []
        begin = self.position
        while self.position - begin < most and (found := self._next(source)):
            record, self.position = found
            self.offset = record.offset + record.size
            records.append(record)
        return records

    def torn(self) -> Record | None:
        """What is there of a chunk that was cut short, for when its writer is dead."""
        self._next()
        if self.damage is not Damage.TORN:
            return None
        data = os.pread(self._descriptor, _LONGEST_RECORD, self.position)
        if len(data) <= formats.RECORD.size:
            return None
        _, kind, stream, _, time_ns, _ = formats.RECORD.unpack_from(data)
        if kind != Kind.CHUNK:
            return None
        return Record(
            kind=Kind.CHUNK,
            stream=Stream(stream),
            time_ns=time_ns,
            position=self.position,
            offset=self.offset,
            size=len(data) - formats.RECORD.size,
            payload=data[formats.RECORD.size :],
        )

    def _next(self, source: Source | None = None) -> tuple[Record, int] | None:
        """The record at `position` and where it ends; when there is none, `damage` tells why.

        Without a source it lacks its payload, which is not read.
        """
        payload = source is not None
        source = source or Exactly(self._descriptor)
        header = source.pread(formats.RECORD.size, self.position)
        self.damage = Damage.TORN if header else Damage.NONE
        if len(header) < formats.RECORD.size:
            return None
        size, kind, stream, _, time_ns, offset = formats.RECORD.unpack(header)
        known = _plausible(size, kind, stream) and (kind == Kind.START) is (self.position == 0)
        if not known or offset != self.offset:
            self.damage = Damage.CORRUPT
            return None
        end = self.position + formats.RECORD.size + size
        if payload or kind == Kind.GAP:
            data = source.pread(size, end - size)
            if len(data) < size:
                return None
        elif os.fstat(self._descriptor).st_size < end:
            return None
        else:
            data = b""
        self.damage = Damage.NONE
        if kind == Kind.GAP:
            (size,) = formats.GAP.unpack(data)
            if not size:  # As many as there is room for would be a log without output.
                self.damage = Damage.CORRUPT
                return None
        record = Record(
            kind=Kind(kind),
            stream=Stream(stream),
            time_ns=time_ns,
            position=self.position,
            offset=self.offset,
            size=size if kind in (Kind.CHUNK, Kind.GAP) else 0,
            payload=data if kind != Kind.GAP else b"",
        )
        return record, end


def _plausible(size: int, kind: int, stream: int) -> bool:
    match kind:
        case Kind.START:
            return size <= formats.MAX_TEXT and stream == Stream.NONE
        case Kind.CHUNK:
            return 0 < size <= formats.MAX_RECORD and stream in (1, 2, 3)
        case Kind.GAP:
            return size == formats.GAP.size and stream == Stream.NONE
        case Kind.EXIT:
            return size <= formats.RESULT_SIZE and stream == Stream.NONE
        case Kind.PREVIEW:
            return 0 < size <= formats.MAX_RECORD and stream in (1, 2)
    return False
