"""Follows the output of an execution: any number of readers, each with its own place in the log."""

import bisect
import os
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from agent.record import Damage, Kind, Stream
from agent.record import Record as LogRecord
from servicekit.aside import aside
from services.executor.ending import End, Reason
from services.executor.errors import ExecutionNotFound, OffsetOutOfRange
from services.executor.logs import Left, OpenLog
from services.executor.record import Record, State
from services.executor.store import Store
from services.executor.watch import Watcher

_PIECE: Final = 64 << 10
_BATCH: Final = 256 << 10
"""Bytes of log that one reader holds, about."""
_SPACING: Final = 1 << 20
_MOST_MARKS: Final = 1024
_MOST_LOGS: Final = 512
_MOST: Final = 2**63 - 1


class Missing(Enum):
    """Why output is missing."""

    DISK_FULL = auto()
    DAMAGED = auto()
    RETENTION = auto()


@dataclass(frozen=True, slots=True)
class Chunk:
    stream: Stream
    offset: int
    time_ns: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Preview:
    """What was seen live, and comes again as chunks; `position` grows from one to the next."""

    stream: Stream
    offset: int
    time_ns: int
    data: bytes
    position: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Output from offset `begin` up to `end` is missing."""

    begin: int
    end: int
    why: Missing


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing came; everything before `offset` was told."""

    offset: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """All that is there was told, and the execution goes on. The last event."""

    offset: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event."""

    end: End


Event = Chunk | Preview | Gap | Heartbeat | Stopped | Ended


class Marks:
    """Places in logs where a reader can begin without reading all before. Forgotten at will."""

    def __init__(self) -> None:
        self._logs: OrderedDict[str, tuple[list[int], list[int]]] = OrderedDict()

    def before(self, key: str, offset: int) -> tuple[int, int]:
        """The nearest known place, as position in the file and offset of the output."""
        positions, offsets = self._logs.get(key, ([], []))
        at = bisect.bisect_right(offsets, offset) - 1
        return (positions[at], offsets[at]) if at >= 0 else (0, 0)

    def note(self, key: str, position: int, offset: int) -> None:
        """Remember a place where a record begins, unless another is near."""
        positions, offsets = self._logs.setdefault(key, ([], []))
        self._logs.move_to_end(key)
        if positions and position < positions[-1] + _SPACING:
            return
        positions.append(position)
        offsets.append(offset)
        if len(positions) > _MOST_MARKS:
            del positions[::2], offsets[::2]
        if len(self._logs) > _MOST_LOGS:
            self._logs.popitem(last=False)


class Outputs:
    """Reads the output of executions."""

    def __init__(self, store: Store, watcher: Watcher, heartbeat: float) -> None:
        self._store = store
        self._watcher = watcher
        self._heartbeat = heartbeat
        self._marks = Marks()

    def size(self, record: Record, *, dead: bool = False) -> int:
        """Bytes of output recorded so far; of a `dead` agent with what it was writing."""
        try:
            log = OpenLog(record.folder)
        except FileNotFoundError:
            return 0
        try:
            self._seek(log, record.key, _MOST)
            torn = log.reader.torn() if dead and log.damage is Damage.TORN else None
            return min(log.offset + (torn.size if torn else 0), _MOST)
        finally:
            log.close()

    def start_ns(self, record: Record) -> int:
        """When the command began, as the agent says; 0 when it has not."""
        try:
            log = OpenLog(record.folder)
        except FileNotFoundError:
            return 0
        try:
            first = log.reader.read(1)
            return first[0].time_ns if first else 0
        finally:
            log.close()

    async def read(
        self, record: Record, from_offset: int, *, follow: bool
    ) -> AsyncGenerator[Event, None]:
        """Yield the output from an offset on; a negative one counts from the end so far.

        Raises OffsetOutOfRange; ExecutionNotFound when it is removed meanwhile.
        """
        async with aclosing(self.batches(record, from_offset, follow=follow)) as batches:
            async for events in batches:
                for event in events:
                    yield event

    async def batches(
        self, record: Record, from_offset: int, *, follow: bool
    ) -> AsyncGenerator[list[Event], None]:
        """As `read`, with what is there at once together."""
        try:
            log = OpenLog(record.folder)
        except FileNotFoundError:
            raise ExecutionNotFound("no such execution", name=record.name) from None
        try:
            begin = from_offset
            if from_offset:
                begin = await aside(self._begin, log, record, from_offset)
            # What has ended does not change any more.
            names = () if self._store.progress(record).end else ("log", "end")
            async with self._watcher.watching(record.folder, *names) as changes:
                told = begin
                beat = time.monotonic() + self._heartbeat
                while True:
                    changes.happened.clear()
                    # First how far it is: so when it has ended, all that it wrote is there.
                    progress = self._store.progress(record)
                    records = await self._records(log, record)
                    live = progress.end is None
                    if events := list(_merged(records, told, live=live)):
                        yield events
                    if records:
                        told = max(told, min(log.offset, _MOST))
                    if progress.end:
                        if records and told < progress.end.output_bytes:
                            continue
                        yield [*_rest(log, progress.end, told), Ended(progress.end)]
                        return
                    if records:
                        beat = time.monotonic() + self._heartbeat
                        continue
                    if progress.state is State.REMOVED:
                        raise ExecutionNotFound("no such execution", name=record.name)
                    if not follow:
                        yield [Stopped(told)]
                        return
                    await changes.wait(max(0.0, beat - time.monotonic()))
                    if not changes.happened.is_set() and time.monotonic() >= beat:
                        yield [Heartbeat(told)]
                        beat = time.monotonic() + self._heartbeat
        finally:
            log.close()

    def _begin(self, log: OpenLog, record: Record, from_offset: int) -> int:
        """Put the reader where `from_offset` is; returns it, counted from the beginning."""
        begin = from_offset
        if from_offset < 0:
            begin = max(0, self._size(record) + from_offset)
        self._seek(log, record.key, begin)
        if log.offset < begin and not _holds(log, begin):
            size = self._size(record)
            if begin > size:
                raise OffsetOutOfRange("beyond the end of the output", end=str(size))
        return begin

    def _size(self, record: Record) -> int:
        end = self._store.progress(record).end
        return end.output_bytes if end else self.size(record)

    def _seek(self, log: OpenLog, key: str, offset: int) -> None:
        """Go forward to what holds `offset`, or to the end, leaving marks."""
        position, known = self._marks.before(key, offset)
        if position > log.position:
            log.go(position, known)
        while log.offset + _SPACING < offset:
            before = log.position
            log.seek(log.offset + _SPACING)
            if log.position == before:
                break
            self._marks.note(key, log.position, log.offset)
        log.seek(offset)

    async def _records(self, log: OpenLog, record: Record) -> list[LogRecord | Left]:
        """What came. What is in memory, as a little surely is, costs no thread."""
        self._marks.note(record.key, log.position, log.offset)
        left = os.fstat(log.descriptor).st_size - log.position
        if left <= _PIECE:
            return log.read(_BATCH)
        return log.at_hand(_BATCH) or await aside(log.read, _BATCH)


def _holds(log: OpenLog, offset: int) -> bool:
    """Whether what follows is there and reaches up to `offset`. Moves nothing."""
    place = log.position, log.offset
    log.read(1)
    reached = log.offset
    log.go(*place)
    return reached >= offset


def _merged(records: list[LogRecord | Left], told: int, *, live: bool) -> Iterator[Event]:
    """What of the records was not told yet; gaps that adjoin as one, previews only while `live`."""
    gap: Gap | None = None
    for found in records:
        if live and not isinstance(found, Left) and found.kind is Kind.PREVIEW:
            seen = found.time_ns, found.payload, found.position
            yield Preview(found.stream, found.offset, *seen)
            continue
        for event in _events(found, told):
            if isinstance(event, Gap) and (gap is None or gap.why is event.why):
                gap = Gap(gap.begin if gap else event.begin, event.end, event.why)
                continue
            if gap:
                yield gap
            gap = event if isinstance(event, Gap) else None
            if gap is None:
                yield event
    if gap:
        yield gap


def _events(found: LogRecord | Left, told: int) -> Iterator[Event]:
    """What of a record was not told yet."""
    begin, end = max(told, found.offset), min(found.offset + found.size, _MOST)
    if begin >= end:
        return
    if isinstance(found, Left):
        yield Gap(begin, end, Missing.RETENTION)
        return
    if found.kind is Kind.GAP:
        yield Gap(begin, end, Missing.DISK_FULL)
        return
    for at in range(begin, end, _PIECE):
        data = found.payload[at - found.offset : at - found.offset + _PIECE]
        yield Chunk(found.stream, at, found.time_ns, data)


def _rest(log: OpenLog, end: End, told: int) -> Iterator[Event]:
    """What stands behind the last whole record, or should, now that nobody writes any more."""
    torn = log.reader.torn() if end.reason is Reason.LOST else None
    if torn:
        yield from _events(torn, told)
        told = max(told, torn.offset + torn.size)
    if told < end.output_bytes:
        yield Gap(told, end.output_bytes, Missing.DISK_FULL if end.full else Missing.DAMAGED)
