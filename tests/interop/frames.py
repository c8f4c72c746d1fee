"""As much of HTTP/2 as one needs to break it on purpose: where frames end, and who asked what."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import hpack

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD: Final = 9

_DATA: Final = 0x0
_HEADERS: Final = 0x1
_RESET: Final = 0x3
_CONTINUATION: Final = 0x9

_END_STREAM: Final = 0x1
_END_HEADERS: Final = 0x4
_PADDED: Final = 0x8
_PRIORITY: Final = 0x20

_INTERNAL_ERROR: Final = 0x2


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, whole."""

    kind: int
    flags: int
    stream: int
    whole: bytes
    """Its bytes, with their head."""

    @property
    def is_headers(self) -> bool:
        return self.kind == _HEADERS

    @property
    def answers(self) -> bool:
        """Whether it is (a part of) the answer to a call, and not only its head."""
        return self.kind == _DATA or (self.is_headers and bool(self.flags & _END_STREAM))

    @property
    def block(self) -> bytes:
        """What of a frame with headers is headers."""
        body = self.whole[_HEAD:]
        if self.is_headers and self.flags & _PADDED:
            body = body[1 : len(body) - body[0]]
        return body[5:] if self.is_headers and self.flags & _PRIORITY else body


def reset(stream: int) -> bytes:
    """A frame that ends one call, as a proxy sends it whose own server is gone."""
    code = _INTERNAL_ERROR.to_bytes(4)
    return len(code).to_bytes(3) + bytes([_RESET, 0]) + stream.to_bytes(4) + code


class Frames:
    """Cuts what one side says into frames."""

    def __init__(self, *, preface: bool) -> None:
        self._preface = preface
        self._held = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now."""
        self._held += data
        if self._preface and len(self._held) >= len(_PREFACE):
            assert self._held.startswith(_PREFACE), "not HTTP/2"
            self._held, self._preface = self._held[len(_PREFACE) :], False
        while not self._preface and len(self._held) >= _HEAD:
            end = _HEAD + int.from_bytes(self._held[:3])
            if len(self._held) < end:
                return
            whole, self._held = self._held[:end], self._held[end:]
            stream = int.from_bytes(whole[5:9]) & 0x7FFFFFFF
            yield Frame(whole[3], whole[4], stream, whole)


class Paths:
    """Listens to a client: which RPC each stream is a call of."""

    def __init__(self) -> None:
        self._frames = Frames(preface=True)
        self._hpack = hpack.Decoder()
        self._block = b""
        self._of: dict[int, str] = {}

    def feed(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            if frame.kind not in (_HEADERS, _CONTINUATION):
                continue
            self._block += frame.block
            if frame.flags & _END_HEADERS:
                headers = dict(self._hpack.decode(self._block, raw=True))
                self._block = b""
                self._of[frame.stream] = headers.get(b":path", b"").decode()

    def of(self, stream: int) -> str:
        """As `/package.Service/Method`."""
        return self._of.get(stream, "")
