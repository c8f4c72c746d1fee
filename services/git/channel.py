"""Pipes and sockets to what runs in warm cells, for the event loop.

Nothing is read before somebody asks for it, so a slow reader slows the writer down.
"""

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from services.git.within import frames
from services.git.within.frames import Frame, Incoming

_PIECE: Final = 64 * 1024


class Ready:
    """Waits until a descriptor is ready, in one direction, for one task at a time."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.closed = False
        self._loop = asyncio.get_running_loop()
        self._waiting: tuple[asyncio.Future[None], Callable[[int], object]] | None = None
        os.set_blocking(number, False)

    async def to_read(self) -> None:
        """Until there is something to read, or it is closed here or there."""
        await self._wait(self._loop.add_reader, self._loop.remove_reader)

    async def to_write(self) -> None:
        """Until there is room, or it is closed here or there."""
        await self._wait(self._loop.add_writer, self._loop.remove_writer)

    def close(self) -> None:
        """Whoever waits goes on; the descriptor may be closed then."""
        self.closed = True
        if self._waiting is not None:
            future, remove = self._waiting
            self._waiting = None
            remove(self.number)
            _wake(future)

    async def _wait(self, add: Callable[..., Any], remove: Callable[[int], object]) -> None:
        future = self._loop.create_future()
        self._waiting = future, remove
        add(self.number, _wake, future)
        try:
            await future
        finally:
            if self._waiting is not None and self._waiting[0] is future:
                self._waiting = None
                remove(self.number)


class Pipe:
    """Our end of a pipe; it closes the descriptor."""

    def __init__(self, number: int) -> None:
        self._ready = Ready(number)

    async def read(self, size: int) -> bytes:
        """What is there, at most `size` bytes; nothing at the end, and once it is closed."""
        waited = False
        while not self._ready.closed:
            with suppress(BlockingIOError):
                data = os.read(self._ready.number, size)
                if not waited:
                    await asyncio.sleep(0)  # Others have a turn, however fast the writer is.
                return data
            waited = True
            await self._ready.to_read()
        return b""

    async def write(self, data: bytes) -> None:
        """Write all of it, and close. Raises BrokenPipeError."""
        rest = memoryview(data)
        while rest and not self._ready.closed:
            try:
                rest = rest[os.write(self._ready.number, rest[:_PIECE]) :]
            except BlockingIOError:
                await self._ready.to_write()
        self.close()

    def close(self) -> None:
        if not self._ready.closed:
            self._ready.close()
            os.close(self._ready.number)


class Channel:
    """Our end of a socket with frames; it closes the socket."""

    def __init__(self, end: socket.socket, limit: int) -> None:
        end.setblocking(False)
        self._socket = end
        self._loop = asyncio.get_running_loop()
        self._incoming = Incoming(end, limit)
        self._ready = Ready(end.fileno())
        self._unsent: deque[tuple[memoryview, list[int]]] = deque()

    def send(self, payload: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a frame, later if need be. Raises OSError where the other side is gone.

        The descriptors may be closed after this.
        """
        if self._ready.closed:
            raise BrokenPipeError
        data = memoryview(frames.head(payload, len(descriptors)) + payload)
        if not self._unsent:
            with suppress(BlockingIOError):
                data = data[self._socket.sendmsg([data], frames.rights(descriptors)) :]
                descriptors = ()
        if data:
            if not self._unsent:
                self._loop.add_writer(self._socket, self._flush)
            self._unsent.append((data, [os.dup(each) for each in descriptors]))

    async def receive(self, limit: int | None = None) -> Frame | None:
        """The next frame; its descriptors are the caller's. None at the end.

        Raises `WireError`, and OSError where the other side is gone.
        """
        if limit is not None:
            self._incoming.limit = limit
        while not self._ready.closed:
            try:
                return self._incoming.read()
            except BlockingIOError:
                await self._ready.to_read()
        return None

    @property
    def is_quiet(self) -> bool:
        """Whether the other side is there and has said nothing."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return not self._ready.closed
        except OSError:
            pass
        return False

    def close(self) -> None:
        if self._ready.closed:
            return
        self._ready.close()
        self._forget_unsent()
        self._incoming.close()
        self._socket.close()

    def _flush(self) -> None:
        try:
            while self._unsent:
                data, descriptors = self._unsent[0]
                rest = data[self._socket.sendmsg([data], frames.rights(descriptors)) :]
                _close_all(descriptors)
                if rest:
                    self._unsent[0] = rest, []
                else:
                    self._unsent.popleft()
        except BlockingIOError:
            return
        except OSError:  # Whoever receives is told.
            pass
        self._forget_unsent()

    def _forget_unsent(self) -> None:
        self._loop.remove_writer(self._socket)
        while self._unsent:
            _close_all(self._unsent.popleft()[1])


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
