"""Where a container that has just started is waited for, and given what its agent starts with."""

import asyncio
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from agent import SANDBOX_UID


class Door:
    """A socket in the file system that serves one visitor."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener

    @classmethod
    @contextmanager
    def at(cls, path: Path) -> Iterator[Self]:
        """Open while the block runs; after it the path leads nowhere."""
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            try:
                path.chmod(0o600)
                os.chown(path, SANDBOX_UID, SANDBOX_UID)
                listener.listen(1)
                listener.setblocking(False)
                yield cls(listener)
            finally:
                path.unlink(missing_ok=True)

    async def hand(self, descriptors: Sequence[int]) -> None:
        """Wait for whoever comes first, and hand these over.

        Nothing but the agent-to-be runs in the container, nor can before it has them.
        Raises OSError for a visitor who is not of the container's user.
        """
        visitor, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        with visitor:
            credentials = visitor.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            if struct.unpack("3i", credentials)[1] != SANDBOX_UID:
                raise OSError("a stranger is at the door")
            visitor.setblocking(True)  # A byte to a socket that is empty does not wait.
            socket.send_fds(visitor, [b"."], list(descriptors))
