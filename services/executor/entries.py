"""Single files and directories of executions: made, locked, read and removed."""

import errno
import fcntl
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path


def content(folder: Path, name: str) -> bytes:
    """The whole of a small file of ours, without the detours of `Path.read_bytes`."""
    descriptor = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(descriptor, 65536), b""))
    finally:
        os.close(descriptor)


def beginning(folder: Path, name: str, most: int) -> bytes:
    """At most so many bytes of a file that may be of any size, as an agent can write to it."""
    descriptor = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, most, 0)
    finally:
        os.close(descriptor)


def made(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def reserve(path: Path, size: int) -> None:
    """Make a file of zeros that has its space, so that writing it later needs none."""
    descriptor = made(path)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename_new(fresh: Path, folder: Path) -> None:
    """A rename never replaces a directory that is not empty, so one of two makers wins."""
    try:
        fresh.rename(folder)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise FileExistsError(folder) from None
        raise


def locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def abandoned(folder: Path, making: float) -> bool:
    """Whether nobody holds it any more, nor has just made it and is about to."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        old = os.fstat(descriptor).st_ctime < time.time() - making
        return old and locked(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(folder: Path) -> None:
    with suppress(FileNotFoundError):  # Another executor may be at the same.
        shutil.rmtree(folder)
