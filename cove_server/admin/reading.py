"""Reads a backup: is it whole, and what is in it. Believes no name of it."""

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from cove_server.admin.archive import MANIFEST, SUMS, XATTR
from cove_server.admin.errors import Refused
from cove_server.admin.parts import TOP

_CHUNK: Final = 1 << 20
_MOST: Final = 64 << 20
"""Bytes of a manifest at most."""
_ANOTHER: Final = "Use another backup."


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a backup says of itself."""

    version: int
    time: str
    cove: str
    scope: str
    owner: str
    schema: int
    revision: int
    environments: int
    files: int
    sha256: str
    gone: tuple[str, ...] = ()
    """Uids of environments that were deleted while it was made: files of theirs may be in it."""
    left_out: int = 0
    left_out_first: tuple[str, ...] = field(default=())


def verified(path: Path, newest: int) -> Manifest:
    """The manifest of a backup of which every byte is as it was written. Raises `Refused`."""
    with path.open("rb") as file:
        manifest, end = _manifest(file)
        known: dict[str, Any] = {name: manifest.get(name) for name in Manifest.__dataclass_fields__}
        if not isinstance(known["version"], int) or known["version"] > newest:
            raise Refused(
                f"{path} is a backup of version {known['version']}; {newest} is known here",
                "Restore it with the version of Cove that made it, or a newer one.",
            )
        if _digest(file, end) != known["sha256"]:
            raise Refused(f"{path} is damaged: its contents do not match its manifest", _ANOTHER)
    for name in ("gone", "left_out_first"):
        known[name] = tuple(known[name] or ())
    return Manifest(**known)


def entries(path: Path) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """What is to be restored, in order. Raises `Refused` for a name that leads elsewhere."""
    with _opened(path) as tar:
        while entry := tar.next():
            cast("Any", tar).members.clear()  # Else all of them would be in memory.
            if entry.name in (SUMS, MANIFEST):
                continue
            parts = entry.name.split("/")
            if parts[0] not in TOP or not {"", ".", ".."}.isdisjoint(parts):
                raise Refused(f"{path} has a file {entry.name!r}, which no backup has", _ANOTHER)
            yield entry, tar


def attributes(entry: tarfile.TarInfo) -> Iterator[tuple[str, bytes]]:
    for name, value in entry.pax_headers.items():
        if name.startswith(XATTR):
            yield name.removeprefix(XATTR), os.fsencode(value)


def moment(entry: tarfile.TarInfo) -> int:
    """When it was changed, in ns since 1970."""
    seconds, _, rest = entry.pax_headers.get("mtime", f"{int(entry.mtime)}").partition(".")
    return int(seconds) * 10**9 + int(rest.ljust(9, "0")[:9])


def _manifest(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """And where it begins."""
    path = Path(str(file.name))
    with _opened(path) as tar:
        while entry := tar.next():
            cast("Any", tar).members.clear()
            if entry.name == MANIFEST:
                content = tar.extractfile(entry)
                data = content.read(_MOST) if content else b""
                try:
                    found = json.loads(data)
                except ValueError:
                    break
                if isinstance(found, dict):
                    return found, entry.offset
                break
    raise Refused(f"{path} is no backup of Cove, or was cut short", _ANOTHER)


def _opened(path: Path) -> "_Tar":
    return _Tar(path)


class _Tar:
    """A tar file whose damage is told as such."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> tarfile.TarFile:
        try:
            self._tar = tarfile.open(self._path, "r:", errors="surrogateescape")
        except tarfile.TarError as error:
            raise Refused(f"{self._path} is no backup of Cove: {error}", _ANOTHER) from error
        return self._tar

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        self._tar.close()
        if isinstance(error, tarfile.TarError):
            raise Refused(f"{self._path} is damaged: {error}", _ANOTHER) from error


def _digest(file: BinaryIO, end: int) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while end:
        data = file.read(min(end, _CHUNK))
        if not data:
            break
        digest.update(data)
        end -= len(data)
    return digest.hexdigest()
