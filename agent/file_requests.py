"""The part of the agent's client that is about files."""

import asyncio
import os
import stat

from agent import encoding, frames
from agent.messages import Entry
from agent.replies import TIMEOUT, Asking, numbers


class FileRequests(Asking):
    """Paths are relative to /workspace or absolute. Raises AgentError and PeerGone."""

    async def open(
        self,
        path: str | bytes,
        flags: int = os.O_RDONLY,
        mode: int = 0o644,
        *,
        follow: bool = True,
        timeout: float = TIMEOUT,
    ) -> int:
        """Open a regular file or a directory inside; `path` is relative to /workspace or absolute.

        No `..` and no symlink leads out of /workspace, /home/cove, /tmp (PATH_OUTSIDE). The
        caller closes the descriptor, and checks what it is: the agent is not believed. With
        O_PATH anything is opened; without `follow` also a symlink itself.
        """
        payload = frames.pack(encoding.to_bytes(path), flags, mode, int(follow))
        reply = await self._ask(frames.OPEN, payload, timeout, descriptors=(), wanted=1)
        return reply.descriptors[0]

    async def stat(self, path: str | bytes, *, follow: bool = False) -> os.stat_result:
        """What is at `path`."""
        descriptor = await self.open(path, os.O_PATH, follow=follow)
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    async def list_directory(self, path: str | bytes) -> list[Entry]:
        """Everything in a directory, by name. Costs the agent no more than an open."""
        descriptor = await self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        return await asyncio.to_thread(_entries, descriptor)

    async def make_directory(
        self, path: str | bytes, mode: int = 0o755, *, parents: bool = False
    ) -> None:
        """With `parents`, missing ones are made and an existing directory is no error."""
        await self._ask(
            frames.MAKE_DIRECTORY, frames.pack(encoding.to_bytes(path), mode, int(parents))
        )

    async def remove(
        self, path: str | bytes, *, recursive: bool = False, timeout: float = 300.0
    ) -> None:
        """Remove a file, a symlink (never its target), or a directory: an empty one, or whole."""
        payload = frames.pack(encoding.to_bytes(path), int(recursive))
        await self._ask(frames.REMOVE, payload, timeout)

    async def rename(
        self, source: str | bytes, target: str | bytes, *, replace: bool = True
    ) -> None:
        """Rename within one file system. Without `replace` an existing target is EEXIST."""
        payload = frames.pack(encoding.to_bytes(source), encoding.to_bytes(target), int(replace))
        await self._ask(frames.RENAME, payload)

    async def read_archive(self, path: str | bytes, out: int, control: int) -> int:
        """Have a helper write an archive of `path` to the stream socket `out`.

        Gives its number, for `end_helper`. The descriptors stay the caller's.
        """
        return await self._help(
            frames.READ_ARCHIVE, frames.pack(encoding.to_bytes(path)), out, control
        )

    async def write_archive(
        self, path: str | bytes, stage: str | bytes, source: int, control: int
    ) -> int:
        """Have a helper unpack an archive from the stream socket `source` into the new directory
        `stage`; when it is told to on `control`, it moves that into the place of `path`."""
        payload = frames.pack(encoding.to_bytes(path), encoding.to_bytes(stage))
        return await self._help(frames.WRITE_ARCHIVE, payload, source, control)

    async def watch(self, path: str | bytes, control: int) -> int:
        """Have a helper tell on `control` what changes below the directory `path`."""
        return await self._help(frames.WATCH, frames.pack(encoding.to_bytes(path)), control)

    async def _help(self, kind: int, payload: bytes, *descriptors: int) -> int:
        reply = await self._ask(kind, payload, descriptors=descriptors)
        return numbers(reply, 1)[0]

    async def end_helper(self, number: int) -> None:
        """Kill a helper, if it is still there. What it began is left as it is."""
        await self._ask(frames.END_HELPER, frames.pack(number))


def _entries(directory: int) -> list[Entry]:
    """Reads and closes the directory. Entries that go away meanwhile are left out."""
    entries = []
    try:
        for name in sorted(os.fsencode(name) for name in os.listdir(directory)):
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                link = stat.S_ISLNK(found.st_mode)
                target = os.readlink(name, dir_fd=directory) if link else b""
            except FileNotFoundError:
                continue
            entries.append(Entry(name, found, target))
    finally:
        os.close(directory)
    return entries
