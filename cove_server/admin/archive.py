"""Writes a backup: a tar of the POSIX kind, which GNU tar and Python read too.

Owners, modes, times, extended attributes, holes, hard links and the whiteouts of overlays are in
it. Behind the files come `SHA256SUMS`, as sha256sum reads it, and last `manifest.json`, with the
digest of all that is before it. Nothing of it is in memory but names of files with several links.
"""

import hashlib
import json
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

SUMS: Final = "SHA256SUMS"
MANIFEST: Final = "manifest.json"
XATTR: Final = "SCHILY.xattr."

_BLOCK: Final = 512
_CHUNK: Final = 1 << 20
_ZEROS: Final = bytes(_CHUNK)
_MOST_LINKS: Final = 100_000
"""Files with several links that are remembered; what comes after is copied once more."""


class _Hashing:
    """A file that knows the digest of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.digest.update(data)
        self._file.write(data)


class Archive:
    """One that is being written. Entries are added in the order in which they are restored."""

    def __init__(self, file: BinaryIO) -> None:
        self._out = _Hashing(file)
        self._links: dict[tuple[int, int], str] = {}
        self._sums = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `__exit__`.
        self.files = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._sums.close()

    def add(self, name: str, descriptor: int) -> None:
        """Add what is open, as it is now. What is neither file nor directory is an O_PATH."""
        found = os.fstat(descriptor)
        entry = _entry(name, found)
        if stat.S_ISREG(found.st_mode):
            self._attributes(entry, descriptor)
            self._file(entry, descriptor, found)
            return
        if stat.S_ISDIR(found.st_mode):
            entry.type = tarfile.DIRTYPE
            self._attributes(entry, descriptor)
        elif stat.S_ISLNK(found.st_mode):
            entry.type = tarfile.SYMTYPE
            entry.linkname = os.readlink("", dir_fd=descriptor)
        elif stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
            entry.type = tarfile.CHRTYPE
        else:
            entry.type = tarfile.FIFOTYPE
        self._head(entry)

    def add_bytes(self, name: str, data: bytes, found: os.stat_result) -> None:
        """Add a file with these contents."""
        entry = _entry(name, found)
        self._put(entry, [(0, len(data))], len(data), iter([data]))

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Add the sums and the manifest, with the digest of everything before it."""
        entry = tarfile.TarInfo(SUMS)
        entry.mode, entry.size = 0o600, self._sums.tell()
        self._sums.seek(0)
        self._head(entry)
        while data := self._sums.read(_CHUNK):
            self._out.write(data)
        self._pad(entry.size)
        whole = {**manifest, "files": self.files, "sha256": self._out.digest.hexdigest()}
        data = json.dumps(whole, indent=1).encode() + b"\n"
        last = tarfile.TarInfo(MANIFEST)
        last.mode, last.size = 0o600, len(data)
        self._head(last)
        self._out.write(data)
        self._pad(last.size)
        self._out.write(bytes(2 * _BLOCK))

    def _head(self, entry: tarfile.TarInfo) -> None:
        self._out.write(entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def _pad(self, size: int) -> None:
        self._out.write(bytes(-size % _BLOCK))

    def _file(self, entry: tarfile.TarInfo, descriptor: int, found: os.stat_result) -> None:
        key = (found.st_dev, found.st_ino)
        if first := self._links.get(key):
            entry.type, entry.linkname = tarfile.LNKTYPE, first
            self._head(entry)
            return
        if found.st_nlink > 1 and len(self._links) < _MOST_LINKS:
            self._links[key] = entry.name
        extents = _extents(descriptor, found)
        self._put(entry, extents, found.st_size, _read(descriptor, extents))

    def _put(
        self,
        entry: tarfile.TarInfo,
        extents: list[tuple[int, int]],
        size: int,
        data: Iterator[bytes],
    ) -> None:
        digest, at = hashlib.sha256(), 0
        stored = sum(length for _, length in extents)
        head = b""
        if stored != size:
            head = _map(extents, size)
            entry.pax_headers = {
                **entry.pax_headers,
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": entry.name,
                "GNU.sparse.realsize": str(size),
            }
        entry.size = len(head) + stored
        self._head(entry)
        self._out.write(head)
        for offset, length in extents:
            _zeros(digest, offset - at)
            left = length
            while left:
                piece = next(data)
                digest.update(piece)
                self._out.write(piece)
                left -= len(piece)
            at = offset + length
        _zeros(digest, size - at)
        self._pad(entry.size)
        self.files += 1
        self._sums.write(_sum(digest.hexdigest(), entry.name))

    @staticmethod
    def _attributes(entry: tarfile.TarInfo, descriptor: int) -> None:
        names: list[str] = []
        found: dict[str, str] = {}
        with suppress(OSError):
            names = os.listxattr(descriptor)
        for name in names:
            if name.startswith(("user.", "trusted.")):
                with suppress(OSError):  # It went meanwhile.
                    found[XATTR + name] = os.fsdecode(os.getxattr(descriptor, name))
        entry.pax_headers = {**entry.pax_headers, **found}


def _entry(name: str, found: os.stat_result) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode = stat.S_IMODE(found.st_mode)
    entry.uid, entry.gid = found.st_uid, found.st_gid
    entry.mtime = int(found.st_mtime)
    seconds, nanos = divmod(found.st_mtime_ns, 10**9)
    entry.pax_headers = {"mtime": f"{seconds}.{nanos:09}"}
    return entry


def _extents(descriptor: int, found: os.stat_result) -> list[tuple[int, int]]:
    """Where a file has data: offset and length. One that has few holes is whole."""
    size = found.st_size
    if found.st_blocks * _BLOCK >= size:
        return [(0, size)]
    extents: list[tuple[int, int]] = []
    at = 0
    with suppress(OSError):  # ENXIO: a hole up to the end.
        while at < size:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
            at = min(os.lseek(descriptor, begin, os.SEEK_HOLE), size)
            if begin < at:
                extents.append((begin, at - begin))
    return extents


def _read(descriptor: int, extents: list[tuple[int, int]]) -> Iterator[bytes]:
    """What is there; zeros where the file has become shorter."""
    for offset, length in extents:
        while length:
            data = os.pread(descriptor, min(length, _CHUNK), offset) or bytes(min(length, _CHUNK))
            offset, length = offset + len(data), length - len(data)
            yield data


def _map(extents: list[tuple[int, int]], size: int) -> bytes:
    """Of a file with holes, as GNU tar's format 1.0 begins it."""
    lines = extents if extents and sum(extents[-1]) == size else [*extents, (size, 0)]
    text = "".join(f"{number}\n" for pair in lines for number in pair)
    data = f"{len(lines)}\n{text}".encode()
    return data + bytes(-len(data) % _BLOCK)


def _zeros(digest: "hashlib._Hash", length: int) -> None:
    while length > 0:
        digest.update(_ZEROS[:length])
        length -= _CHUNK


def _sum(digest: str, name: str) -> bytes:
    plain = os.fsencode(name)
    escaped = plain.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"\\" if escaped != plain else b"") + digest.encode() + b"  " + escaped + b"\n"


def created(path: Path) -> BinaryIO:
    """A new file for this user alone. Raises FileExistsError."""
    return open(path, "x+b", opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC, 0o600))
