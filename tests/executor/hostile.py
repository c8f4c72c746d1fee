"""An agent that lies, as a process of its own: `python hostile.py SOCKET UID MANNER`.

It answers HELLO as it should, so that it is believed to be an agent, and then as its manner says.
SOCKET is the number of a listening descriptor that it inherits.
"""

import array
import itertools
import os
import random
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from agent import PROTOCOL_VERSION, formats, frames

Request = tuple[int, int, list[int]]
"""Kind, number, descriptors."""
Manner = Callable[[socket.socket, Request], None]

HUGE: Final = b"9" * 4000


def send(peer: socket.socket, data: bytes, descriptors: tuple[int, ...] = ()) -> None:
    rights = array.array("i", descriptors).tobytes()
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
    sent = peer.sendmsg([data], ancillary)
    peer.sendall(data[sent:])


def reply(kind: int, number: int, payload: bytes = b"", count: int = 0) -> bytes:
    return frames.frame(PROTOCOL_VERSION, kind, number, payload, count)


def descriptors_of_no_reply(peer: socket.socket, request: Request) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    for _ in range(400):
        send(peer, reply(frames.OK, request[1] + 1000), (null,) * 16)


def replies_to_nothing(peer: socket.socket, _: Request) -> None:
    while True:
        peer.sendall(b"".join(reply(frames.OK, number) for number in range(10**6, 10**6 + 5000)))


def endless_frame(peer: socket.socket, request: Request) -> None:
    size = (1 << 20) - 1
    peer.sendall(frames.HEADER.pack(size, PROTOCOL_VERSION, frames.OK, 0, request[1]))
    while True:
        peer.sendall(bytes(1 << 16))


def frame_too_large(peer: socket.socket, request: Request) -> None:
    peer.sendall(frames.HEADER.pack(0xFFFFFFFF, PROTOCOL_VERSION, frames.OK, 0, request[1]))
    while True:
        peer.sendall(bytes(1 << 16))


def too_many_descriptors(peer: socket.socket, request: Request) -> None:
    peer.sendall(frames.HEADER.pack(0, PROTOCOL_VERSION, frames.OK, 255, request[1]))


def other_version(peer: socket.socket, request: Request) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    send(peer, frames.frame(99, frames.OK, request[1], b"", 16), (null,) * 16)
    os.close(null)


def unknown_errors(peer: socket.socket, request: Request) -> None:
    for code in (b"NO_SUCH_CODE", b"\xff\xfe", b""):
        peer.sendall(reply(frames.ERROR, request[1], frames.pack(code, HUGE, b"\xff")))
        return


def every_error(peer: socket.socket, request: Request) -> None:
    codes = [
        value for name, value in vars(frames).items() if name.isupper() and value == name.encode()
    ]
    number = request[1]
    failure = frames.pack(codes[number % len(codes)], HUGE if number % 2 else number, b"said\0")
    peer.sendall(reply(frames.ERROR, number, failure))


def lies(peer: socket.socket, request: Request) -> None:
    kind, number, _ = request
    row = (b"one.\xff", b"0", HUGE, b"-" + HUGE, b"1e9")
    said = {
        frames.LIST: frames.pack(HUGE, *(row * 500)),
        frames.START: frames.pack(HUGE, HUGE),
        frames.RUN: frames.pack(b"-1", b"2"),
    }
    peer.sendall(reply(frames.OK, number, said.get(kind, b"")))


def listed_for_ever(peer: socket.socket, request: Request) -> None:
    """It starts nothing, and says that all of it runs."""
    kind, number, _ = request
    if kind in (frames.START, frames.RUN):
        peer.sendall(reply(frames.OK, number, frames.pack(7, 0)))
    else:
        peer.sendall(reply(frames.OK, number, frames.pack(0)))


def silence(_peer: socket.socket, _request: Request) -> None:
    """Never answers."""


def closes(peer: socket.socket, _: Request) -> None:
    peer.shutdown(socket.SHUT_RDWR)


def noise(peer: socket.socket, request: Request) -> None:
    dice = random.Random(request[1])
    peer.sendall(dice.randbytes(dice.randrange(1, 1 << 16)))


def wrong_descriptors(peer: socket.socket, request: Request) -> None:
    kind, number, _ = request
    if kind != frames.OPEN:
        lies(peer, request)
        return
    descriptor = next(STRANGE)()
    send(peer, reply(frames.OK, number, b"", 1), (descriptor,))
    os.close(descriptor)


def fifo() -> int:
    path = f"/tmp/hostile-{os.getpid()}"
    os.mkfifo(path)
    try:
        return os.open(path, os.O_RDWR)
    finally:
        Path(path).unlink()


OPENED: Final[tuple[Callable[[], int], ...]] = (
    lambda: os.open("/proc/self/mem", os.O_RDWR),
    lambda: os.open("/proc/self/status", os.O_RDONLY),
    lambda: os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY),
    lambda: os.open("/dev/zero", os.O_RDWR),
    lambda: os.open("/dev/shm", os.O_RDONLY | os.O_DIRECTORY),
    lambda: os.open("/proc/self/exe", os.O_PATH),
    lambda: os.open("/proc", os.O_PATH | os.O_DIRECTORY),
    fifo,
    lambda: os.memfd_create("x"),
    lambda: socket.socket(socket.AF_UNIX).detach(),
    lambda: os.eventfd(0),
    lambda: os.pidfd_open(os.getpid()),
    lambda: os.pipe()[0],
    lambda: os.pipe()[1],
)
KINDS: Final = len(OPENED)


def hostile_log(peer: socket.socket, request: Request) -> None:
    """Says that it runs, and writes into its log what no agent would."""
    kind, number, descriptors = request
    if kind == frames.PREPARE:
        peer.sendall(reply(frames.ERROR, number, frames.pack(frames.LIMIT_REACHED, 0, b"")))
        return
    if kind == frames.START:
        log, result = descriptors[:2]
        dice = random.Random(number)
        huge = 2**64 - 1
        start = formats.record(1, 0, huge, 0, 0)
        os.write(log, start)
        os.write(log, formats.record(3, 0, huge, 0, 8) + formats.GAP.pack(2**63 - 1 - number))
        os.write(log, formats.record(2, 1, 0, 2**63 - 1 - number, 5) + b"hello")
        os.write(log, start * 10_000 + dice.randbytes(1000))
        if number % 2:
            os.pwrite(result, formats.RESULT_MAGIC + dice.randbytes(4000), 0)
        peer.sendall(reply(frames.OK, number, frames.pack(7, 0)))
        return
    listed_for_ever(peer, request)


def huge_files(peer: socket.socket, request: Request) -> None:
    """Says that it runs, and gives log and result a size that fits into no memory."""
    kind, number, descriptors = request
    if kind == frames.PREPARE:
        peer.sendall(reply(frames.ERROR, number, frames.pack(frames.LIMIT_REACHED, 0, b"")))
        return
    if kind == frames.START:
        for each in descriptors[:2]:
            os.ftruncate(each, 1 << 40)
    listed_for_ever(peer, request)


STRANGE: Final = itertools.cycle(OPENED)
MANNERS: Final[dict[str, Manner]] = {
    each.__name__: each
    for each in (
        descriptors_of_no_reply,
        replies_to_nothing,
        endless_frame,
        frame_too_large,
        too_many_descriptors,
        other_version,
        unknown_errors,
        every_error,
        lies,
        listed_for_ever,
        silence,
        closes,
        noise,
        wrong_descriptors,
        hostile_log,
        huge_files,
    )
}


def serve(peer: socket.socket, manner: Manner) -> None:
    buffer = bytearray()
    came: list[int] = []
    try:
        while True:
            data, fds, _, _ = socket.recv_fds(peer, 1 << 16, 64)
            if not data:
                return
            buffer += data
            came += fds
            while parsed := frames.split(buffer):
                _, kind, count, number, _ = parsed
                mine, came = came[:count], came[count:]
                if kind == frames.HELLO:
                    peer.sendall(reply(frames.OK, number))
                else:
                    manner(peer, (kind, number, mine))
                for descriptor in mine:
                    os.close(descriptor)
    except (OSError, ValueError):
        return
    finally:
        peer.close()


def main() -> None:
    listener = socket.socket(fileno=int(sys.argv[1]))
    uid = int(sys.argv[2])
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=serve, args=(peer, MANNERS[sys.argv[3]]), daemon=True).start()


if __name__ == "__main__":
    main()
