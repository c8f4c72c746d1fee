"""A hostile agent that makes its answers up: frames as the protocol has them, and nearly.

Copied into the agent's own package, it is the first process of a sandbox. All is drawn from one
seed: numbers of requests that nobody made, lengths that lie, descriptors of every kind, too many
or none, the executor's own given back, records and packets that no agent writes, floods, silence.
"""

import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from agent import PROTOCOL_VERSION, formats, frames

from . import hostile

_LISTENER: Final = 3
_CODES: Final = [value for name, value in vars(frames).items() if value == name.encode()]
_TAKE_DESCRIPTORS: Final = (frames.OPEN, frames.CONNECT, frames.LISTEN)
_STARTS: Final = (frames.START, frames.START_OPEN, frames.START_SECRETLY)
_PIECES: Final = (b"", b"0", b"1", b"7", b"-1", b"\xff", b"9" * 40, b"1e9", b"x", b"../..", b"S")
_PACKETS: Final = (frames.DONE, frames.FAILED, frames.STAGED, frames.CHANGES, b"other")
_MOST_KEPT: Final = 50


def opened(dice: random.Random) -> int:
    """A descriptor that is not what was asked for; a file inside may be, or with wrong flags."""
    inside: tuple[Callable[[], int], ...] = (
        lambda: os.open("/workspace", os.O_RDONLY | os.O_DIRECTORY),
        lambda: os.open("/workspace/f", os.O_RDWR | os.O_CREAT, 0o600),
        lambda: os.open("/workspace/f", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600),
        lambda: os.open("/workspace/f", os.O_RDONLY | os.O_CREAT | os.O_NONBLOCK, 0o600),
        lambda: os.open("/tmp", os.O_RDONLY | os.O_DIRECTORY),
        lambda: os.open("/etc/passwd", os.O_RDONLY),
        lambda: os.open("/proc/1/environ", os.O_RDONLY),
        lambda: os.open("/proc/self/maps", os.O_RDONLY),
    )
    while True:
        with suppress(OSError):
            return dice.choice((*hostile.OPENED, *inside))()


class Talk:
    """One connection."""

    def __init__(self, peer: socket.socket, seed: int) -> None:
        self._peer = peer
        self._dice = random.Random(seed)
        self._numbers = [0]
        self._kept: list[int] = []

    def answer(self, _: socket.socket, request: hostile.Request) -> None:
        dice, (kind, number, descriptors) = self._dice, request
        self._numbers = [*self._numbers[-20:], number]
        for each in descriptors:
            self._misuse(each, record=kind in _STARTS)
        for data, count in self._frames(kind, number):
            made = [opened(dice) for _ in range(count)]
            if self._kept and made and dice.random() < 0.3:
                os.dup2(dice.choice(self._kept), made[0])
            try:
                hostile.send(self._peer, data, tuple(made))
            finally:
                for each in made:
                    os.close(each)
        self._then()

    def close(self) -> None:
        for each in self._kept:
            os.close(each)

    def _then(self) -> None:
        match self._dice.randrange(30):
            case 0:
                self._peer.shutdown(socket.SHUT_RDWR)
            case 1:
                while True:
                    self._peer.sendall(bytes(1 << 16))
            case 2:
                self._peer.sendall(self._dice.randbytes(self._dice.randrange(1, 2000)))

    def _frames(self, kind: int, number: int) -> Iterator[tuple[bytes, int]]:
        """Each with how many descriptors go with it."""
        dice = self._dice
        for _ in range(dice.choice((0, 1, 1, 1, 1, 1, 2, 4))):
            odd = (*self._numbers, number + 1, dice.getrandbits(32))
            said = number if dice.random() < 0.85 else dice.choice(odd)
            count = int(kind in _TAKE_DESCRIPTORS)
            if dice.random() < 0.2:
                count = dice.choice((0, 1, 2, 16, 17, 40))
            told = count if dice.random() < 0.85 else dice.randrange(256)
            what = dice.choice((frames.OK, frames.OK, frames.OK, frames.ERROR, dice.randrange(256)))
            payload = self._payload(kind, failure=what == frames.ERROR)
            size = len(payload)
            if dice.random() < 0.1:
                size = dice.choice((0, size + 1, max(0, size - 1), 1 << 20, 2**32 - 1))
            version = PROTOCOL_VERSION if dice.random() < 0.97 else dice.randrange(256)
            header = size, version, what, min(told, 255), said & 0xFFFFFFFF
            yield frames.HEADER.pack(*header) + payload, count

    def _payload(self, kind: int, *, failure: bool) -> bytes:
        dice = self._dice
        if failure and dice.random() < 0.7:
            return frames.pack(dice.choice(_CODES), dice.choice((0, 2, 28, 2**70)), b"said\0\xff")
        match dice.randrange(6):
            case 0:
                return dice.randbytes(dice.randrange(200))
            case 1:
                return frames.pack(*dice.choices(_PIECES, k=dice.randrange(30)))
            case 2:
                return frames.pack(*[b"9" * dice.randrange(5000)] * dice.randrange(100))
            case _ if kind in (frames.RUN, *_STARTS):
                return frames.pack(7, 0)
            case _ if kind == frames.LIST:
                return frames.pack(1, *(b"one.x", 7, 0, 0, 0) * dice.randrange(200))
            case _:
                return b""

    def _misuse(self, descriptor: int, *, record: bool) -> None:
        dice = self._dice
        if len(self._kept) < _MOST_KEPT and dice.random() < 0.5:
            self._kept.append(os.dup(descriptor))
        with suppress(OSError):
            os.set_blocking(descriptor, False)
            for _ in range(dice.randrange(6)):
                fields = dice.choices(_PIECES, k=dice.randrange(12))
                packet = frames.pack(dice.choice(_PACKETS), *fields)
                os.write(descriptor, self._record() if record else packet)
            if dice.random() < 0.1:
                os.ftruncate(descriptor, dice.choice((0, 1, 1 << 40)))

    def _record(self) -> bytes:
        dice = self._dice
        kind, size = dice.randrange(6), dice.choice((0, 1, 40, 70_000, 2**32 - 1))
        offset = dice.choice((0, 1, 2**31, 2**63 - 1, 2**64 - 1))
        head = formats.record(kind, dice.randrange(5), dice.getrandbits(64), offset, size)
        return head + dice.randbytes(min(size, dice.choice((0, 1, 40, 70_000))))


def main(seed: int) -> int:
    listener = socket.socket(fileno=_LISTENER)
    listener.setblocking(True)
    while True:
        peer, _ = listener.accept()
        seed += 1
        threading.Thread(target=_talk, args=(peer, seed), daemon=True).start()


def _talk(peer: socket.socket, seed: int) -> None:
    talk = Talk(peer, seed)
    try:
        hostile.serve(peer, talk.answer)
    finally:
        talk.close()
