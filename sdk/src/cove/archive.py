"""Archives on the caller's side: a local directory packed, and one of a workspace unpacked.

What is unpacked may come from somebody hostile. All of it is looked through first; then each name
is opened by its parent's descriptor and no link is followed, so nothing outside is written.
"""

import os
import secrets
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

_PIECE: Final = 256 * 1024
_KEPT: Final = 0o755
_OWN_FILE: Final = 0o600
_OWN: Final = 0o700
_MOST_DEPTH: Final = 128
_MOST_HEADER: Final = 1 << 20
_LATEST: Final = 1 << 40
_ENTER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


class UnsafeArchive(ValueError):
    """An archive that no honest workspace sends. Nothing of it was unpacked."""


@dataclass(slots=True)
class Copied:
    """What was copied of a directory, and what was not."""

    files: int = 0
    bytes: int = 0
    """Of all files."""
    skipped: list[str] = field(default_factory=list)
    """Paths, relative to the directory, of links that lead out of it, and of pipes, sockets and
    devices."""


def pack(folder: Path, copied: Copied) -> Iterator[bytes]:
    """A tar archive of what is in a directory, in pieces; counted as it goes.

    Raises `OSError`, also when a file gets shorter while it is read.
    """
    for path, where in _below(folder, ()):
        found = path.lstat()
        name = "/".join(where)
        info = tarfile.TarInfo(name)
        info.mode, info.mtime = stat.S_IMODE(found.st_mode) & 0o777, int(found.st_mtime)
        if stat.S_ISDIR(found.st_mode):
            info.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(found.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)  # noqa: PTH115
            if not _stays_inside(where, info.linkname):
                copied.skipped.append(name)
                continue
        elif stat.S_ISREG(found.st_mode):
            yield from _file(path, info, copied)
            continue
        else:
            copied.skipped.append(name)
            continue
        yield _header(info)
    yield bytes(2 * tarfile.BLOCKSIZE)


def unpack(archive: BinaryIO, folder: Path, on_progress: Callable[[int], None] | None) -> Copied:
    """Unpack into a directory, which is made if it is missing; what is there of a name is replaced.

    `archive` can be read twice. Raises `UnsafeArchive`, and `OSError` when something of another
    kind is in the way.
    """
    copied = Copied()
    for member in _members(archive):
        _parts(member)
    folder.mkdir(parents=True, exist_ok=True)
    root = os.open(folder, _ENTER)
    try:
        for member in _members(archive):
            where = _parts(member)
            if where:
                _place(archive, member, where, root, copied)
            if on_progress:
                on_progress(copied.bytes)
    finally:
        os.close(root)
    return copied


def _below(folder: Path, above: tuple[str, ...]) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """All in it, a directory before what is in it; links are not followed."""
    for path in sorted(folder.iterdir()):
        where = (*above, path.name)
        yield path, where
        if path.is_dir() and not path.is_symlink():
            yield from _below(path, where)


def _file(path: Path, info: tarfile.TarInfo, copied: Copied) -> Iterator[bytes]:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:  # noqa: PTH123
        info.size = left = os.fstat(file.fileno()).st_size
        yield _header(info)
        while left:
            data = file.read(min(left, _PIECE))
            if not data:
                raise OSError(0, "it got shorter while it was read", str(path))
            left -= len(data)
            yield data
        yield bytes(-info.size % tarfile.BLOCKSIZE)
    copied.files += 1
    copied.bytes += info.size


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


class _Member(tarfile.TarInfo):
    """What belongs to a header is read into memory whole: a limit to it."""

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        plain = self.type in (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE, tarfile.SYMTYPE)
        if not plain and self.size > _MOST_HEADER:
            raise tarfile.ReadError("a header beyond a limit")
        return super()._proc_member(tar)  # type: ignore[misc]


def _members(archive: BinaryIO) -> Iterator[tarfile.TarInfo]:
    archive.seek(0)
    try:
        with tarfile.open(
            fileobj=archive, mode="r:", tarinfo=_Member, encoding="utf-8", errors="surrogateescape"
        ) as tar:
            while member := tar.next():
                tar.members = []  # type: ignore[attr-defined]  # It would remember them all.
                yield member
    except (tarfile.TarError, ValueError, ArithmeticError, EOFError, RecursionError) as error:
        raise UnsafeArchive(f"no archive: {error}") from error


def _parts(member: tarfile.TarInfo) -> tuple[str, ...]:
    """The names in its path. Raises `UnsafeArchive` for a path that leads out, and other kinds."""
    found = tuple(part for part in member.name.split("/") if part not in ("", "."))
    if member.name.startswith("/") or ".." in found or "\0" in member.name:
        raise UnsafeArchive(f"a path that leads out: {member.name!r}")
    if len(found) > _MOST_DEPTH or member.size < 0:
        raise UnsafeArchive(f"beyond a limit: {member.name[:200]!r}")
    plain = member.isreg() and not member.issparse()
    if not (plain or member.isdir() or member.issym()):
        raise UnsafeArchive(f"neither file, directory nor symbolic link: {member.name!r}")
    if not found and not member.isdir():
        raise UnsafeArchive(f"no path: {member.name!r}")
    return found


def _stays_inside(where: tuple[str, ...], target: str) -> bool:
    """Whether a link at `where` leads nowhere outside, if all other links are so.

    Upwards it may lead at its beginning only: after a name, which may be a link, nobody knows.
    """
    steps = [part for part in target.split("/") if part not in ("", ".")]
    up = 0
    while steps[up : up + 1] == [".."]:
        up += 1
    if not target or "\0" in target or target.startswith("/"):
        return False
    return up < len(where) and ".." not in steps[up:]


def _place(
    archive: BinaryIO, member: tarfile.TarInfo, where: tuple[str, ...], root: int, copied: Copied
) -> None:
    if member.issym() and not _stays_inside(where, member.linkname):
        copied.skipped.append("/".join(where))
        return
    parent = _enter(root, where if member.isdir() else where[:-1], member.mode)
    try:
        if member.isdir():
            return
        draft = f".cove-{secrets.token_hex(8)}"
        if member.issym():
            os.symlink(member.linkname, draft, dir_fd=parent)
        else:
            _write(archive, member, draft, parent)
        try:
            os.replace(draft, where[-1], src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            os.unlink(draft, dir_fd=parent)
            raise
    finally:
        os.close(parent)
    if member.isreg():
        copied.files += 1
        copied.bytes += member.size


def _enter(root: int, where: tuple[str, ...], mode: int) -> int:
    """The directory there, made if it is missing, the last with `mode`. The caller closes it."""
    here = os.dup(root)
    for depth, name in enumerate(where, 1):
        above = here
        try:
            try:
                kept = (mode & _KEPT) | _OWN if depth == len(where) else _KEPT
                os.mkdir(name, kept, dir_fd=above)
            except FileExistsError:
                pass
            here = os.open(name, _ENTER, dir_fd=above)
        finally:
            os.close(above)
    return here


def _write(archive: BinaryIO, member: tarfile.TarInfo, draft: str, parent: int) -> None:
    with open(os.open(draft, _NEW, _OWN_FILE, dir_fd=parent), "wb") as file:  # noqa: PTH123
        place, left = archive.tell(), member.size
        archive.seek(member.offset_data)
        try:
            while left:
                data = archive.read(min(left, _PIECE))
                if not data:
                    raise UnsafeArchive("it ends too early")
                file.write(data)
                left -= len(data)
            file.flush()
            os.fchmod(file.fileno(), (member.mode & _KEPT) | _OWN_FILE)
            os.utime(file.fileno(), _times(member))
        except BaseException:
            os.unlink(draft, dir_fd=parent)
            raise
        finally:
            archive.seek(place)


def _times(member: tarfile.TarInfo) -> tuple[int, int]:
    """Of a file: whatever was sent, one that can be set."""
    late = member.mtime if 0 <= member.mtime < _LATEST else 0
    return int(late), int(late)
