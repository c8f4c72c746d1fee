"""Where a container that has just started is waited for, and given what its agent starts with."""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Self

from agent import SANDBOX_UID


class Door:
    """A socket in the file system that serves one visitor."""

    def __init__(self, listener: socket.socket, owner: int) -> None:
        self._listener = listener
        self._owner = owner

    @classmethod
    @contextmanager
    def at(cls, path: Path, owner: int = SANDBOX_UID) -> Iterator[Self]:
        """Open for that user while the block runs; after it the path leads nowhere."""
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            try:
                path.chmod(0o600)
                os.chown(path, owner, owner)
                listener.listen(1)
                listener.setblocking(False)
                yield cls(listener, owner)
            finally:
                path.unlink(missing_ok=True)

    async def hand(self, descriptors: Sequence[int]) -> None:
        """Wait for whoever comes first, and hand these over.

        Nothing but the agent-to-be runs in the container, nor can before it has them.
        Raises OSError for a visitor who is not of the container's user.
        """
        with await self._visitor() as visitor:
            visitor.setblocking(True)  # A byte to a socket that is empty does not wait.
            socket.send_fds(visitor, [b"."], list(descriptors))

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[int | None]:
        """What whoever comes first hands out, if anything; it goes on when the block has ended.

        Raises OSError as `hand`, and when it leaves.
        """
        loop = asyncio.get_running_loop()
        with await self._visitor() as visitor:
            visitor.setblocking(False)
            await _readable(loop, visitor)
            data, descriptors, _, _ = socket.recv_fds(visitor, 1, 1)
            try:
                if not data:
                    raise OSError("who was at the door has left")
                yield descriptors[0] if descriptors else None
            finally:
                for each in descriptors:
                    os.close(each)
            await loop.sock_sendall(visitor, b".")

    async def _visitor(self) -> socket.socket:
        visitor, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        credentials = visitor.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if struct.unpack("3i", credentials)[1] != self._owner:
            visitor.close()
            raise OSError("a stranger is at the door")
        return visitor


async def _readable(loop: asyncio.AbstractEventLoop, visitor: socket.socket) -> None:
    ready = asyncio.Event()
    loop.add_reader(visitor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(visitor)
