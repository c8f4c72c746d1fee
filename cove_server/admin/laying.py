"""Lays out what is in a backup, below one directory."""

import os
import stat
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from cove_server.admin.reading import attributes, moment

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK: Final = 1 << 18
_HOLE: Final = bytes(_CHUNK)


def lay_out(root: Path, entries: Iterable[tuple[tarfile.TarInfo, tarfile.TarFile]]) -> int:
    """Make files below `root` of all entries; how many there were. Raises OSError.

    Directories come before what is in them, and get their times when that is done.
    """
    count = 0
    open_folders: list[tuple[str, int]] = []
    for entry, tar in entries:
        while open_folders and not entry.name.startswith(f"{open_folders[-1][0]}/"):
            _stamp(root, *open_folders.pop())
        parent = _parent(root, entry.name)
        try:
            _make(root, parent, entry, tar)
        finally:
            os.close(parent)
        if entry.isdir():
            open_folders.append((entry.name, moment(entry)))
        count += 1
    while open_folders:
        _stamp(root, *open_folders.pop())
    return count


def _parent(root: Path, name: str) -> int:
    """The directory that something is in. No link leads there."""
    descriptor = os.open(root, _FOLDER)
    for folder in name.split("/")[:-1]:
        try:
            below = os.open(folder, _FOLDER, dir_fd=descriptor)
        except FileNotFoundError:
            os.mkdir(folder, 0o700, dir_fd=descriptor)
            below = os.open(folder, _FOLDER, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def _make(root: Path, parent: int, entry: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
    name = entry.name.rpartition("/")[2]
    if entry.isdir():
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
    else:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
    if entry.issym():
        os.symlink(entry.linkname, name, dir_fd=parent)
    elif entry.islnk():
        source = _parent(root, entry.linkname)
        try:
            last = entry.linkname.rpartition("/")[2]
            os.link(last, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)
        return
    elif entry.ischr():
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
    elif entry.isfifo():
        os.mkfifo(name, dir_fd=parent)
    elif entry.isreg():
        _fill(parent, name, entry, tar)
    _describe(parent, name, entry)


def _fill(parent: int, name: str, entry: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
    content = tar.extractfile(entry)
    assert content
    with os.fdopen(os.open(name, _NEW, 0o600, dir_fd=parent), "wb") as file:
        if not entry.issparse():
            while data := content.read(_CHUNK):
                file.write(data)
            return
        while data := content.read(_CHUNK):
            if data == _HOLE[: len(data)]:
                file.seek(len(data), os.SEEK_CUR)
            else:
                file.write(data)
        file.truncate(entry.size)


def _describe(parent: int, name: str, entry: tarfile.TarInfo) -> None:
    """Owner, attributes, mode and times: the owner first, as it takes some modes away."""
    if os.geteuid() == 0:
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
    if entry.isreg() or entry.isdir():
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=parent)
        try:
            for key, value in attributes(entry):
                os.setxattr(descriptor, key, value)
            os.fchmod(descriptor, entry.mode)
        finally:
            os.close(descriptor)
    elif entry.isfifo():
        os.chmod(name, entry.mode, dir_fd=parent)
    time = moment(entry)
    os.utime(name, ns=(time, time), dir_fd=parent, follow_symlinks=False)


def _stamp(root: Path, name: str, time: int) -> None:
    with suppress(FileNotFoundError):
        parent = _parent(root, name)
        try:
            last = name.rpartition("/")[2]
            os.utime(last, ns=(time, time), dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(parent)
