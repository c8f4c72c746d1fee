"""Reads, writes, lists and moves files of an environment through its agent."""

import errno
import hashlib
import heapq
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from agent import drafts
from agent.client import AgentClient, AgentError
from servicekit.aside import aside
from servicekit.errors import ServiceError
from services.executor.agents import Agents
from services.executor.errors import (
    FileChanged,
    FileExists,
    FileNotFound,
    OffsetOutOfRange,
    WrongFileType,
)
from services.executor.files.failures import failure
from services.executor.files.places import Places

_ROOT: Final = b"/workspace"
_PIECE: Final = 64 << 10
_MAKE: Final = "Set `make_parents`, or make the directory first."


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is at a path."""

    path: bytes
    stat: os.stat_result
    target: bytes = b""
    """Of a symbolic link."""

    @property
    def etag(self) -> str:
        """Changes when the content may have."""
        said = (self.stat.st_ino, self.stat.st_size, self.stat.st_mtime_ns, self.stat.st_ctime_ns)
        return hashlib.sha256(repr(said).encode()).hexdigest()[:24]


class Files:
    """The files of this node's environments, by uid and path."""

    def __init__(self, agents: Agents, places: Places) -> None:
        self._agents = agents
        self._places = places

    @asynccontextmanager
    async def reading(
        self, uid: str, path: bytes, offset: int, limit: int
    ) -> AsyncIterator[tuple[Found, AsyncIterator[bytes]]]:
        """What a file is, and its content from `offset` on; `limit` 0 is all.

        A file that grows meanwhile is read up to the size it had.
        """
        with telling(path):
            async with self._agents.awake(uid) as agent:
                descriptor = await agent.open(path, os.O_RDONLY)
            try:
                found = os.fstat(descriptor)
                if stat.S_ISDIR(found.st_mode):
                    raise WrongFileType("a directory", path=shown(path))
                self._places.check(uid, descriptor, stat.S_IFREG, os.O_RDONLY)
                if offset > found.st_size:
                    raise OffsetOutOfRange("beyond the end", end=str(found.st_size))
                most = min(limit or found.st_size, found.st_size - offset)
                pieces = _pieces(descriptor, offset, offset + most)
                async with aclosing(pieces):
                    yield Found(path=relative(path), stat=found), pieces
            finally:
                os.close(descriptor)

    async def stat(self, uid: str, path: bytes) -> Found:
        """What is there; a link itself."""
        with telling(path, FileNotFound):
            async with self._agents.awake(uid) as agent:
                return await look(agent, self._places, uid, path)

    async def listing(self, uid: str, path: bytes, after: bytes, size: int) -> list[Found]:
        """What is in a directory, by name, after the name `after`; at most `size`."""
        with telling(path):
            async with self._agents.awake(uid) as agent:
                descriptor = await agent.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                self._places.check(uid, descriptor, stat.S_IFDIR, os.O_RDONLY)
                folder = relative(path)
                return await aside(entries, descriptor, folder, after, size)
            finally:
                os.close(descriptor)

    async def make_directory(self, uid: str, path: bytes, *, parents: bool) -> Found:
        """One that is there is no error."""
        with telling(path, FileExists):
            async with self._agents.awake(uid) as agent:
                try:
                    if parents and b"/" in path.strip(b"/"):
                        await agent.make_directory(parent(path), parents=True)
                    with missing(path, made=parents):
                        await agent.make_directory(path)
                except AgentError as error:
                    if not isinstance(failure(error, ""), FileExists):
                        raise
                found = await look(agent, self._places, uid, path, follow=True)
                if not stat.S_ISDIR(found.stat.st_mode):
                    raise FileExists("something else is there", path=shown(path))
                return found

    async def remove(self, uid: str, path: bytes, *, recursive: bool, etag: str) -> None:
        """Remove a file, a link or a directory, `recursive` with all in it."""
        with telling(path, FileNotFound):
            async with self._agents.awake(uid) as agent:
                if etag:
                    compare(await look(agent, self._places, uid, path), etag)
                await agent.remove(path, recursive=recursive)

    async def move(self, uid: str, path: bytes, new_path: bytes, *, overwrite: bool) -> Found:
        """Rename within one part of the workspace."""
        with telling(path, FileNotFound):
            async with self._agents.awake(uid) as agent:
                try:
                    await agent.rename(path, new_path, replace=overwrite)
                except AgentError as error:
                    if error.errno in (errno.ENOTEMPTY, errno.EISDIR, errno.EEXIST):
                        raise FileExists("something is there", path=shown(new_path)) from error
                    raise
                return await look(agent, self._places, uid, new_path)


def relative(path: bytes) -> bytes:
    """The path as it is shown: relative to the workspace's root, if it is below that."""
    plain = path.rstrip(b"/")
    if plain.startswith(_ROOT + b"/"):
        return plain[len(_ROOT) + 1 :]
    return b"." if plain in (_ROOT, b"") else plain


def parent(path: bytes) -> bytes:
    """The path less its last name; empty when that is the workspace's root."""
    return path.rstrip(b"/").rpartition(b"/")[0]


def shown(path: bytes) -> str:
    """For people."""
    return path.decode(errors="backslashreplace")


@contextmanager
def telling(path: bytes, not_directory: type[ServiceError] = WrongFileType) -> Iterator[None]:
    """Raise what a caller is told. `not_directory`: of a name below something that is none."""
    try:
        yield
    except (AgentError, OSError) as error:
        if error.errno == errno.ENOTDIR:
            raise not_directory("not a directory on the way", path=shown(path)) from error
        told = failure(error, shown(path))
        if told is None:
            raise
        raise told from error


@contextmanager
def missing(path: bytes, *, made: bool) -> Iterator[None]:
    """Of a block that needs the directory above; `made`: those that are missing were made."""
    try:
        yield
    except AgentError as error:
        if error.errno != errno.ENOENT or made:
            raise
        raise FileNotFound(
            "the directory above is missing", remedy=_MAKE, path=shown(path)
        ) from error


def compare(found: Found, etag: str) -> None:
    """Raises FileChanged unless it is the file with that etag."""
    if found.etag != etag:
        raise FileChanged("the file has changed", path=shown(found.path))


async def look(
    agent: AgentClient, places: Places, uid: str, path: bytes, *, follow: bool = False
) -> Found:
    """What is at a path. Raises AgentError."""
    descriptor = await agent.open(path, os.O_PATH, follow=follow)
    try:
        found = places.check(uid, descriptor, 0, os.O_PATH)
        link = stat.S_ISLNK(found.st_mode)
        target = os.readlink(b"", dir_fd=descriptor) if link else b""
        return Found(path=relative(path), stat=found, target=target)
    finally:
        os.close(descriptor)


async def _pieces(descriptor: int, at: int, end: int) -> AsyncGenerator[bytes, None]:
    while at < end:
        data = await aside(os.pread, descriptor, min(_PIECE, end - at), at)
        if not data:
            return
        yield data
        at += len(data)


def entries(descriptor: int, folder: bytes, after: bytes, size: int) -> list[Found]:
    """Entries that go away meanwhile are left out. Remembers no more names than it returns."""
    prefix = b"" if folder == b"." else folder + b"/"
    found: list[Found] = []
    while len(found) < size:
        wanted = size - len(found)
        names = _names(descriptor, after, wanted)
        for name in names:
            with suppress(FileNotFoundError):
                what, target = _status(descriptor, name)
                found.append(Found(path=prefix + name, stat=what, target=target))
        if len(names) < wanted:
            break
        after = names[-1]
    return found


def _names(descriptor: int, after: bytes, size: int) -> list[bytes]:
    """The first names of a directory, sorted, after `after`."""
    with os.scandir(descriptor) as all_of_it:
        names = (os.fsencode(entry.name) for entry in all_of_it)
        told = (name for name in names if name > after and not drafts.is_draft(name))
        return heapq.nsmallest(size, told)


def _status(descriptor: int, name: bytes) -> tuple[os.stat_result, bytes]:
    """What is there, and where it leads if it is a link. Raises OSError."""
    opened = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
    try:  # One thing is asked twice, so that it is the same both times.
        found = os.fstat(opened)
        link = stat.S_ISLNK(found.st_mode)
        return found, os.readlink(b"", dir_fd=opened) if link else b""
    finally:
        os.close(opened)
