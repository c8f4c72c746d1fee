"""One client of the agent."""

import errno
import os
import struct
from _socket import (
    CMSG_SPACE,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    SCM_RIGHTS,
    SO_PEERCRED,
    SOL_SOCKET,
    socket,
)

from agent import PROTOCOL_VERSION, frames

_MSG_CMSG_CLOEXEC = 0x40000000
_MAX_UNSENT = 1 << 20
_ANCILLARY = CMSG_SPACE(4 * frames.MAX_DESCRIPTORS)

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""What is wanting may be there soon: whatever failed so is to be tried again."""
REST = 0.1
"""Seconds until then. Who waits at a listener keeps it readable, and a loop would spin."""

Request = tuple[int, int, bytes, list[int]]
"""Kind, number, payload, descriptors."""


class Connection:
    """Whatever a client does, the agent never waits for it."""

    def __init__(self, sock: socket) -> None:
        self.socket = sock
        self.open = True
        self._received = bytearray()
        self._descriptors: list[int] = []
        self._unsent: list[tuple[bytes, list[int]]] = []

    def from_outside(self) -> bool:
        """Whether the peer is in no pid namespace of ours, so no program of this sandbox."""
        credentials = self.socket.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)
        return bool(struct.unpack("3i", credentials)[0] == 0)

    @property
    def sending(self) -> bool:
        return bool(self._unsent)

    def receive(self) -> list[Request]:
        """The whole requests that came. Closes itself at the end, and on nonsense."""
        try:
            data, ancillary, _, _ = self.socket.recvmsg(
                65536, _ANCILLARY, MSG_DONTWAIT | _MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return []
        except OSError:
            data, ancillary = b"", []
        for level, kind, content in ancillary:
            if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
                count = len(content) // 4
                self._descriptors += struct.unpack(f"{count}i", content[: 4 * count])
        self._received += data
        requests = []
        try:
            while parsed := frames.split(self._received):
                _, kind, count, number, payload = parsed
                if count > len(self._descriptors):
                    raise ValueError("descriptors missing")
                requests.append((kind, number, payload, self._descriptors[:count]))
                del self._descriptors[:count]
        except ValueError:
            data = b""
        if not data:
            self.close()
        return requests

    def reply(self, kind: int, number: int, payload: bytes, descriptor: int = -1) -> None:
        """Answer a request; takes the descriptor over. A client that does not read is dropped."""
        descriptors = [descriptor] if descriptor >= 0 else []
        if not self.open:
            _close(descriptors)
            return
        data = frames.frame(PROTOCOL_VERSION, kind, number, payload, len(descriptors))
        self._unsent.append((data, descriptors))
        self.flush()
        if sum(len(data) for data, _ in self._unsent) > _MAX_UNSENT or len(self._unsent) > 64:
            self.close()

    def flush(self) -> None:
        """Send what the peer takes now."""
        while self.open and self._unsent:
            data, descriptors = self._unsent[0]
            rights = struct.pack(f"{len(descriptors)}i", *descriptors)
            ancillary = [(SOL_SOCKET, SCM_RIGHTS, rights)] if descriptors else []
            try:
                sent = self.socket.sendmsg([data], ancillary, MSG_DONTWAIT | MSG_NOSIGNAL)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS:
                    self.close()
                    return
                self._unsent[0] = (_without_descriptors(data), [])
                _close(descriptors)
                continue
            _close(descriptors)
            if sent == len(data):
                self._unsent.pop(0)
            else:
                self._unsent[0] = (data[sent:], [])

    def close(self) -> None:
        if not self.open:
            return
        self.open = False
        self.socket.close()
        _close(self._descriptors)
        for _, descriptors in self._unsent:
            _close(descriptors)
        self._unsent.clear()


def _without_descriptors(reply: bytes) -> bytes:
    """Instead of a reply whose descriptor cannot be sent, as others of our uid fill the quota."""
    _, version, _, _, number = frames.HEADER.unpack_from(reply)
    return frames.frame(version, frames.ERROR, number, frames.too_many_in_flight())


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
    descriptors.clear()
