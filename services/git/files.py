"""Small files of the state directory: written whole and durably, read without following links."""

import asyncio
import os
import re
import secrets
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent.writeback import wait_written
from services.git.cell import Identity

_UNFINISHED: Final = re.compile(r"\..+\.[0-9a-f]{8}")


def write(
    path: Path,
    data: bytes,
    *,
    owner: Identity | None = None,
    mode: int = 0o644,
    durable: bool = True,
    whole: bool = False,
) -> None:
    """Replace `path` by a file with `data`.

    Whole: after a power loss it is one that was there, not half of it. Durable: the new one. For
    both the disk is waited for.
    """
    written = write_aside(path, data, owner=owner, mode=mode, durable=durable, whole=whole)
    written.rename(path)
    if durable:
        sync_directory(path.parent)


def write_aside(
    path: Path,
    data: bytes,
    *,
    owner: Identity | None = None,
    mode: int = 0o644,
    durable: bool = True,
    whole: bool = False,
) -> Path:
    """Write a file that is to be renamed to `path`, as `write` does it; nothing if that fails."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        if owner is not None and os.geteuid() == 0:
            os.fchown(descriptor, owner.uid, owner.gid)
        os.fchmod(descriptor, mode)
        if durable:
            os.fsync(descriptor)
        elif whole:
            wait_written(descriptor)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return temporary


def write_beneath(root: int, path: bytes, data: bytes, owner: Identity) -> None:
    """Write a file below the directory `root`, with the directories it needs; follows no link.

    Raises `NotADirectoryError` where something else is on the way.
    """
    *parents, name = path.split(b"/")
    directory = os.dup(root)
    try:
        for parent in parents:
            with suppress(FileExistsError):
                os.mkdir(parent, dir_fd=directory)
                _own(parent, directory, owner)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(parent, flags, dir_fd=directory)
            os.close(directory)
            directory = below
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o644, dir_fd=directory), "wb") as file:  # noqa: PTH123
            file.write(data)
        _own(name, directory, owner)
    finally:
        os.close(directory)


def _own(name: bytes, directory: int, owner: Identity) -> None:
    if os.geteuid() == 0:
        os.chown(name, owner.uid, owner.gid, dir_fd=directory, follow_symlinks=False)


def sweep(directory: Path) -> None:
    """Remove what is left of a `write` into `directory` whose process was killed."""
    for path in directory.glob(".*.*"):
        if _UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Make renames in `path` survive a power loss."""
    sync(path, os.O_DIRECTORY)


def sync(path: Path, flags: int = 0) -> None:
    """Make what is at `path` survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path, owner: Identity, mode: int = 0o755) -> None:
    """Make `path` if it is not there; parents must be."""
    path.mkdir(exist_ok=True)
    path.chmod(mode)
    if os.geteuid() == 0:
        os.chown(path, owner.uid, owner.gid, follow_symlinks=False)


def copy_from_cell(directory: Path, name: str, target: Path, owner: Identity) -> bool:
    """Copy a file that a cell wrote. Trusts neither its kind nor its owner.

    False when it is not a plain file: a cell that was taken over may have put
    a link there, which would be read with the service's rights.
    """
    parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        source = os.open(name, flags, dir_fd=parent)
    except OSError:
        return False
    finally:
        os.close(parent)
    with open(source, "rb") as reader:  # noqa: PTH123 - a descriptor.
        found = os.fstat(source)
        if not stat.S_ISREG(found.st_mode) or (os.geteuid() == 0 and found.st_uid != owner.uid):
            return False
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o644), "wb") as writer:  # noqa: PTH123 - a descriptor.
            shutil.copyfileobj(reader, writer)
            os.fchmod(writer.fileno(), 0o644)
            if os.geteuid() == 0:
                os.fchown(writer.fileno(), owner.uid, owner.gid)
    temporary.rename(target)
    return True


async def remove_but(directory: Path, *kept: str) -> None:
    """Remove what is in a directory, as `remove_tree`, but for these names."""
    with suppress(FileNotFoundError):
        for name in await asyncio.to_thread(os.listdir, directory):
            if name not in kept:
                await remove_tree(directory / name)


async def remove_tree(directory: Path) -> None:
    """Remove what a sandbox wrote: deeper than Python can walk, and without permissions."""
    if await asyncio.to_thread(_removed, directory):
        return
    for program in (["rm", "-rf"], ["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        process = await asyncio.create_subprocess_exec(
            *program,
            "--",
            str(directory),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        )
        if await process.wait() == 0 and program[0] == "rm":
            return
    raise OSError("a directory cannot be removed")


def _removed(directory: Path) -> bool:
    """Whether it could be removed as it is, which follows no link."""
    try:
        if directory.is_symlink() or not directory.is_dir():
            directory.unlink()
        else:
            shutil.rmtree(directory)
    except FileNotFoundError:
        return not os.path.lexists(directory)
    except (OSError, RecursionError):
        return False
    return True
