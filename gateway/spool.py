"""Entries of the audit log on their way to the registry, in a file that outlives this process.

A call leaves a mark when it begins, and its entry when it ends. Both are with the kernel before
anything goes on, so that the kill of a gateway loses none; a loss of power may take the latest.
Each gateway has a file of its own, and a lock on it. One that nobody holds is of a gateway that
is gone: the next one sends what is in it. An id is kept once, so nothing is lost or told twice.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from google.protobuf.message import DecodeError

from cove.registry.v1.audit_pb2 import AuditEntry
from servicekit.disk import NO_ROOM
from servicekit.room import allocate

_log = logging.getLogger(__name__)

UNKNOWN: Final = "UNKNOWN"
"""How a call ended whose gateway died before."""

_SUFFIX: Final = ".spool"
_BEGAN, _ENDED = b"B", b"E"
_LENGTH: Final = 4
_HEAD: Final = 1 + _LENGTH
_ROOM: Final = 4 << 20
"""Bytes that it has on the disk, also when that is full: what makes room leaves entries, too."""
_STALE: Final = 60.0
"""Seconds after which a file that never got its name belongs to nobody."""


class Spool:
    """The file of this gateway."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / f"{os.urandom(8).hex()}{_SUFFIX}"
        self._file = -1
        self.size = 0
        self.rewrite((), ())

    def began(self, entry: AuditEntry) -> None:
        """Raises OSError, after which the call must not begin."""
        self._write(_frame(_BEGAN, entry))

    def ended(self, entry: AuditEntry) -> None:
        """Raises OSError."""
        self._write(_frame(_ENDED, entry))

    def rewrite(self, begun: Iterable[AuditEntry], unsent: Iterable[AuditEntry]) -> None:
        """Leave nothing but these in the file. Raises OSError; then it is as it was."""
        fresh = self._path.with_name(f".{self._path.name}")
        file = os.open(fresh, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            content = b"".join(
                [_frame(_BEGAN, each) for each in begun] + [_frame(_ENDED, each) for each in unsent]
            )
            problem = allocate(file, 0, _ROOM)
            if problem in NO_ROOM and self._file >= 0:  # The one there is has some.
                raise OSError(problem, os.strerror(problem))
            _write_all(file, content)
            fresh.rename(self._path)
        except OSError:
            os.close(file)
            fresh.unlink(missing_ok=True)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self.size = file, len(content)

    def close(self, *, empty: bool) -> None:
        """Leave it to the next gateway, unless nothing is in it that was not sent."""
        if empty:
            self._path.unlink(missing_ok=True)
        os.close(self._file)

    def _write(self, frame: bytes) -> None:
        try:
            _write_all(self._file, frame)
        except OSError:  # Half an entry would hide all that come after it.
            os.ftruncate(self._file, self.size)
            os.lseek(self._file, self.size, os.SEEK_SET)
            raise
        self.size += len(frame)


class Left:
    """The file of a gateway that is gone. Hold it, send it, remove it."""

    def __init__(self, path: Path, file: int) -> None:
        self._path = path
        self._file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def entries(self) -> list[AuditEntry]:
        """All that ended, and those that only began, as `UNKNOWN`."""
        found: dict[str, AuditEntry] = {}
        for kind, entry in _read(self._path.read_bytes()):
            if kind == _BEGAN:
                entry.code = UNKNOWN
            if kind == _ENDED or entry.id not in found:
                found[entry.id] = entry
        return list(found.values())

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def left(folder: Path) -> Iterator[Left]:
    """The files of gateways that are gone, one at a time."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STALE:
                    path.unlink()
            continue
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        with Left(path, file) as found:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file).st_ino != path.stat().st_ino:  # It was just rewritten.
                    continue
            except (BlockingIOError, FileNotFoundError):
                continue
            yield found


def _frame(kind: bytes, entry: AuditEntry) -> bytes:
    data = entry.SerializeToString()
    return kind + len(data).to_bytes(_LENGTH, "big") + data


def _read(content: bytes) -> Iterator[tuple[bytes, AuditEntry]]:
    """What is whole; a kill may have cut off the last, and a loss of power more than that."""
    at = 0
    while at + _HEAD <= len(content):
        kind = content[at : at + 1]
        end = at + _HEAD + int.from_bytes(content[at + 1 : at + _HEAD], "big")
        if end > len(content):
            return
        entry = _entry(content[at + _HEAD : end])
        if kind not in (_BEGAN, _ENDED) or not entry.id:
            _log.error("%d bytes of the audit log cannot be read", len(content) - at)
            return
        yield kind, entry
        at = end


def _entry(data: bytes) -> AuditEntry:
    """An empty one if that is none."""
    try:
        return AuditEntry.FromString(data)
    except DecodeError:
        return AuditEntry()


def _write_all(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]
