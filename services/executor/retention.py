"""Keeps the output of executions within bounds.

Of one that writes much, the beginning and the end are kept, and the middle is given back to the
file system: it becomes a hole, between two records. Where all of an environment together are too
much, those that ended longest ago lose all their output; their ends stay. What has ended long ago
is removed. Every step may break off at any point and be done again.
"""

import asyncio
import ctypes
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from agent.record import Damage
from services.executor import hole
from services.executor.hole import NONE, Hole
from services.executor.keeping import Keeper
from services.executor.logs import OpenLog
from services.executor.record import Record, State
from services.executor.store import Store

_log = logging.getLogger(__name__)
_libc = ctypes.CDLL(None, use_errno=True)

_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02
_BLOCK: Final = 512
_LOOK: Final = 1.0
"""Seconds between two looks at what runs."""
_TOTAL: Final = 5
"""Looks between two sums over an environment in which something ran."""
_ALL: Final = 600
"""Looks between two rounds through everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much is kept; 0 is all."""

    execution_bytes: int
    head_bytes: int
    environment_bytes: int
    age_ns: int
    holes: bool
    """Whether the file system can take back the middle of a file."""


class Trimmer:
    """Makes room. Sizes are what files take on disk."""

    def __init__(
        self,
        *,
        store: Store,
        keeper: Keeper,
        retention: Retention,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._keeper = keeper
        self._retention = retention
        self._now_ns = now_ns
        self._touched: set[str] = set()

    async def run(self) -> None:
        """Look for ever. What fails, say on a full disk, is tried again at the next look."""
        looks = 0
        while True:
            try:
                await self._look(looks)
            except OSError:
                _log.exception("output cannot be trimmed")
            looks += 1
            await asyncio.sleep(_LOOK)

    async def _look(self, looks: int) -> None:
        running = self._keeper.running()
        self._touched.update(each.uid for each in running)
        if running and self._retention.holes:
            await asyncio.to_thread(self._trim_all, running)
        if looks % _ALL == 0:
            self._touched.update(await asyncio.to_thread(self._store.environments))
        if looks % _TOTAL == 0:
            for uid in self._touched:
                await self._environment(uid)
            self._touched = {each.uid for each in running}

    def _trim_all(self, running: list[Record]) -> None:
        many = {uid: sum(each.uid == uid for each in running) for uid in self._touched}
        for record in running:
            with suppress(FileNotFoundError):
                self.trim(record.folder, self._share(many[record.uid]))

    def _share(self, running: int) -> int:
        """What one of so many that run may have; 0 is all."""
        whole = self._retention.environment_bytes
        shares = [self._retention.execution_bytes, -(-whole // max(1, running))]
        return min(filter(None, shares), default=0)

    async def _environment(self, uid: str) -> None:
        old, dropped = await asyncio.to_thread(self._sum, uid)
        for record in old:
            async with self._store.held(record) as there:
                if there and self._store.progress(record).state is State.ENDED:
                    await self._keeper.drop(record)
        for record in dropped:
            await asyncio.to_thread(self._drop, record)

    def _sum(self, uid: str) -> tuple[list[Record], list[Record]]:
        """Ended executions that are to go, and those that are to lose their output."""
        found = [(each, self._store.folder(uid, each)) for each in self._store.ids(uid)]
        sizes = {name: _taken(folder) for name, folder in found}
        ends = {name: _ended_ns(folder) for name, folder in found}
        age, most = self._retention.age_ns, self._retention.environment_bytes
        old: list[Record] = []
        dropped: list[Record] = []
        total = sum(sizes.values())
        for name, end in sorted(ends.items(), key=lambda each: each[1]):
            late = bool(age) and end < self._now_ns() - age
            if not late and not (most and total > most and sizes[name]):
                continue
            try:
                record = self._store.read(uid, name)
            except (ValueError, KeyError, TypeError):  # As `Store.records`.
                continue
            progress = self._store.progress(record) if record else None
            if record is None or progress is None or progress.end is None:
                continue
            (old if late else dropped).append(record)
            total -= sizes[name]
        return old, dropped

    def trim(self, folder: Path, most: int) -> None:
        """Give back the middle of a log that takes more than `most` bytes. Raises OSError."""
        if not most or _taken(folder) <= most:
            return
        with hole.noting(folder) as held:
            if held is None:
                return
            log = OpenLog(folder)
            try:
                before = log.hole()
                if before != NONE:  # Whoever noted it may have been killed before it was made.
                    _punch(folder, before.begin, before.end)
                if _taken(folder) > most:
                    self._grow(folder, held, log, most)
            finally:
                log.close()

    def _grow(self, folder: Path, held: int, log: OpenLog, most: int) -> None:
        """Make the hole so large that three quarters of `most` are left."""
        before = log.hole()
        head = min(self._retention.head_bytes, most // 2)
        if before == NONE:
            log.reader.seek(max(0, head - 1))
            log.reader.read(1)
            if log.position > most // 2:  # Many small records take more than what is in them.
                log.go(0, 0)
                _walk(log, most // 2, head // 64)
            before = Hole(log.position, log.position, log.offset, log.offset)
        log.go(before.end, before.last)
        tail = max(most // 4, most * 3 // 4 - before.begin)
        size = os.fstat(log.descriptor).st_size
        if _walk(log, size - tail, tail // 64) is Damage.CORRUPT:
            _punch(folder, log.position, size)  # Nobody can read on from here.
            size = log.position
            log.go(before.end, before.last)
            if _taken(folder) <= most:
                return
            _walk(log, size - tail, tail // 64)
        if log.position > before.end:
            hole.note(held, Hole(before.begin, log.position, before.first, log.offset))
            _punch(folder, before.begin, log.position)

    def _drop(self, record: Record) -> None:
        """Give back all output of one that has ended; its end stays."""
        end = self._store.progress(record).end
        if end is None:
            return
        with suppress(FileNotFoundError), hole.noting(record.folder) as held:
            if held is None:
                return
            # An empty log without an end would be a start that never was, and be made again.
            descriptor = os.open(record.folder / "end", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            path = record.folder / "log"
            gone = hole.read(held)
            size = max(path.stat().st_size, gone.end)
            hole.note(held, Hole(0, size, 0, max(end.output_bytes, gone.last)))
            os.truncate(path, 0)


def _walk(log: OpenLog, until: int, step: int) -> Damage:
    """Go on to a record that begins at about `until`, or not far after; tells what is in the way.

    It goes by steps of so many bytes of output, or of one record.
    """
    while log.position < until:
        last = log.position
        log.reader.seek(log.offset + max(step, 1))
        if log.position == last and not log.reader.read(1):
            return log.damage
    return Damage.NONE


def punches(folder: Path) -> bool:
    """Whether the file system of a folder can take back the middle of a file."""
    try:
        with TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 14))
            file.flush()
            _punch_file(file.fileno(), 1 << 12, 1 << 13)
    except OSError:
        return False
    return True


def _punch(folder: Path, begin: int, end: int) -> None:
    if begin >= end:
        return
    descriptor = os.open(folder / "log", os.O_WRONLY | os.O_CLOEXEC)
    try:
        _punch_file(descriptor, begin, end)
    finally:
        os.close(descriptor)


def _punch_file(descriptor: int, begin: int, end: int) -> None:
    where = ctypes.c_longlong(begin), ctypes.c_longlong(end - begin)
    if _libc.fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, *where) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _taken(folder: Path) -> int:
    """Bytes on disk of a log; 0 when it is gone."""
    try:
        return (folder / "log").stat().st_blocks * _BLOCK
    except FileNotFoundError:
        return 0


def _ended_ns(folder: Path) -> int:
    """About when it ended, if it has; the end tells whether."""
    try:
        return (folder / "end").stat().st_mtime_ns
    except FileNotFoundError:
        return 1 << 62
