"""A client's end of a socket of agent or launcher: requests, replies, descriptors, credentials."""

import asyncio
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from agent import PROTOCOL_VERSION, frames

_UCRED: Final = struct.Struct("3i")
_ANCILLARY: Final = socket.CMSG_SPACE(_UCRED.size) + socket.CMSG_SPACE(4 * frames.MAX_DESCRIPTORS)
_MAX_REPLY: Final = 1 << 20


class PeerGone(ConnectionError):
    """Nobody listens, the peer went away, or it did not answer in time."""


class PeerTooOld(Exception):
    """The peer speaks a version of the protocol that is not known here."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. The descriptors belong to the receiver, who closes them."""

    ok: bool
    payload: bytes
    descriptors: tuple[int, ...]


class Channel:
    """One connection. Any number of requests may wait on it at once."""

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._socket = sock
        self._loop = loop
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._given_up: set[int] = set()
        """Requests whose reply may still come, though nobody waits for it."""
        self._numbers = 0
        self._sending = asyncio.Lock()
        self.gone = asyncio.Event()
        """Set when the connection has ended."""
        self.then: set[Callable[[], object]] = set()
        """Called at that moment."""
        self.pid = 0
        """Of the process that wrote the last reply, in our pid namespace; told by the kernel."""
        self.uid = -1
        """Of that process, in our user namespace."""

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, timeout: float) -> AsyncIterator[Self]:
        """Raises PeerGone when nobody listens at `path`, or can be asked. `timeout` in seconds."""
        loop = asyncio.get_running_loop()
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError as error:  # For want of descriptors.
            raise PeerGone(f"no connection: {error}") from error
        with sock:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            try:
                async with asyncio.timeout(timeout):
                    await loop.sock_connect(sock, str(path))
            except (OSError, TimeoutError) as error:
                raise PeerGone(f"no connection: {error}") from error
            channel = cls(sock, loop)
            loop.add_reader(sock, channel._receive)
            try:
                yield channel
            finally:
                channel._end()

    async def request(
        self, kind: int, payload: bytes, timeout: float, descriptors: Sequence[int] = ()
    ) -> Reply:
        """Send one request and wait for its reply, at most `timeout` seconds.

        The descriptors stay the caller's. Raises PeerGone; what was asked may have been done then.
        """
        if self.gone.is_set():
            raise PeerGone("connection ended")
        self._numbers += 1
        number = self._numbers & 0xFFFFFFFF
        data = frames.frame(PROTOCOL_VERSION, kind, number, payload, len(descriptors))
        reply: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting[number] = reply
        answer: Reply | None = None
        try:
            async with asyncio.timeout(timeout):
                async with self._sending:
                    await self._send(data, descriptors)
                answer = await reply
        except TimeoutError as error:
            raise PeerGone("no reply in time") from error
        except OSError as error:
            if error.errno == errno.ETOOMANYREFS:  # This one was not sent; the next may be.
                answer = Reply(False, frames.too_many_in_flight(), ())
                return answer
            raise PeerGone(f"connection ended: {error}") from error
        finally:
            waiting = self._waiting.pop(number, None)
            if answer is None:
                if waiting:
                    self._given_up.add(number)
                _discard(reply)
        return answer

    async def _send(self, data: bytes, descriptors: Sequence[int]) -> None:
        rights = struct.pack(f"{len(descriptors)}i", *descriptors)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
        sent = 0
        try:
            while sent < len(data):
                try:
                    sent += self._socket.sendmsg([data[sent:]], () if sent else ancillary)
                except BlockingIOError:
                    await self._writable()
        except BaseException:
            if sent:  # Half a request: nothing that follows would be understood.
                self._end()
            raise

    async def _writable(self) -> None:
        ready = asyncio.Event()
        self._loop.add_writer(self._socket, ready.set)
        self.then.add(ready.set)
        try:
            await ready.wait()
        finally:
            self.then.discard(ready.set)
            if not self.gone.is_set():
                self._loop.remove_writer(self._socket)

    def _receive(self) -> None:
        try:
            data, ancillary, _, _ = self._socket.recvmsg(65536, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                count = len(content) // 4
                self._descriptors.extend(struct.unpack(f"{count}i", content[: 4 * count]))
            elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                self._believe(*_UCRED.unpack(content[: _UCRED.size]))
        if not data:
            self._end()
            return
        self._buffer += data
        try:
            while parsed := frames.split(self._buffer, _MAX_REPLY):
                self._deliver(*parsed)
            # Those of a frame that has not all come; no others, or they would be without end.
            if len(self._descriptors) > (frames.MAX_DESCRIPTORS if self._buffer else 0):
                raise ValueError("descriptors of no reply")
        except ValueError:
            self._end()

    def _believe(self, pid: int, uid: int, _gid: int) -> None:
        if pid > 0:
            self.pid, self.uid = pid, uid

    def _deliver(self, version: int, kind: int, count: int, number: int, payload: bytes) -> None:
        if count > len(self._descriptors):
            raise ValueError("descriptors missing")
        descriptors = tuple(self._descriptors.popleft() for _ in range(count))
        waiting = self._waiting.pop(number, None)
        if waiting is None or waiting.done():
            _close(descriptors)
            if waiting is None and number not in self._given_up:
                raise ValueError("a reply to nothing")
            self._given_up.discard(number)
        elif version != PROTOCOL_VERSION:
            _close(descriptors)
            waiting.set_exception(PeerTooOld(f"the peer speaks version {version}"))
        else:
            waiting.set_result(Reply(kind == frames.OK, payload, descriptors))

    def _end(self) -> None:
        if self.gone.is_set():
            return
        self.gone.set()
        for each in self.then:
            each()
        # Before it is closed: who gets its number next would be taken for it.
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        _close(self._descriptors)
        self._descriptors.clear()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(PeerGone("connection ended"))
        self._waiting.clear()


def _discard(reply: "asyncio.Future[Reply]") -> None:
    """Close what came with a reply whose waiter has left in the same moment."""
    if reply.done() and not reply.cancelled() and not reply.exception():
        _close(reply.result().descriptors)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
