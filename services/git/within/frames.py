"""Frames with descriptors over a unix socket, between the service and a cell.

A frame is its length (4 bytes), the number of its descriptors (1 byte), and its bytes. The
other side is not believed: lengths and numbers are bounded, and what is wrong is a `WireError`.
"""

import _socket
import os
import struct
from collections.abc import Sequence

LIMIT = 64 << 20
"""Bytes of a frame."""
DESCRIPTORS = 64
"""Of a frame, at most."""
_HEAD = struct.Struct("!IB")
_INT = struct.calcsize("i")
_PIECE = 256 << 10

Frame = tuple[bytes, list[int]]


class WireError(Exception):
    """The other side does not keep to the protocol."""


class Incoming:
    """Puts frames together, as they come."""

    def __init__(self, socket: _socket.socket, limit: int = LIMIT) -> None:
        self.limit = limit
        self._socket = socket
        self._data = bytearray()
        self._head: tuple[int, int] | None = None
        self._descriptors: list[int] = []

    def read(self) -> Frame | None:
        """The next frame, whose descriptors are the caller's; None at the end of all.

        Raises `WireError`, and BlockingIOError while a socket that does not block has less than
        a frame: call it again then.
        """
        while True:
            missing = (self._head[0] if self._head else _HEAD.size) - len(self._data)
            if missing == 0 and self._head is None:
                length, count = _HEAD.unpack(self._data)
                if length > self.limit:
                    raise WireError(f"a frame of {length} bytes, where {self.limit} are allowed")
                self._head = length, count
                self._data.clear()
            elif missing == 0:
                return self._whole()
            elif not self._receive(missing):
                if self._data or self._head:
                    raise WireError("broken off within a frame")
                return None

    def close(self) -> None:
        """Let go of the descriptors of a frame that is not whole."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _receive(self, missing: int) -> bool:
        data, ancillary, flags, _ = self._socket.recvmsg(
            min(missing, _PIECE),
            _socket.CMSG_SPACE(DESCRIPTORS * _INT),
            _socket.MSG_CMSG_CLOEXEC,
        )
        for level, kind, content in ancillary:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                whole = len(content) // _INT
                self._descriptors += struct.unpack(f"{whole}i", content[: whole * _INT])
        if flags & _socket.MSG_CTRUNC or len(self._descriptors) > DESCRIPTORS:
            raise WireError("too many descriptors")
        self._data += data
        return bool(data)

    def _whole(self) -> Frame:
        assert self._head
        if self._head[1] != len(self._descriptors):
            raise WireError("not the descriptors that were announced")
        frame = bytes(self._data), self._descriptors
        self._data, self._head, self._descriptors = bytearray(), None, []
        return frame


def head(payload: bytes, count: int) -> bytes:
    """What precedes the payload. Raises `WireError` where it is too much for a frame."""
    if len(payload) > LIMIT:
        raise WireError(f"{len(payload)} bytes are too many for a frame of {LIMIT}")
    if count > DESCRIPTORS:
        raise WireError(f"{count} descriptors are too many for a frame of {DESCRIPTORS}")
    return _HEAD.pack(len(payload), count)


def rights(descriptors: Sequence[int]) -> list[tuple[int, int, bytes]]:
    """What `sendmsg` takes to send descriptors along."""
    if not descriptors:
        return []
    packed = struct.pack(f"{len(descriptors)}i", *descriptors)
    return [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)]


def send(socket: _socket.socket, payload: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send a frame through a socket that blocks."""
    data = memoryview(head(payload, len(descriptors)) + payload)
    sent = socket.sendmsg([data[:_PIECE]], rights(descriptors))
    if sent < len(data):
        socket.sendall(data[sent:])
