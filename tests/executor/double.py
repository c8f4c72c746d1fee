"""An agent in this process that is slow, or breaks off, just when a test wants it to."""

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from agent import PROTOCOL_VERSION, formats, frames
from agent.handle import Handle
from tests.executor.node import ALPHABET, NODE, Node, Sandbox

Answer = tuple[int, bytes] | None
"""Kind of the reply and payload; None breaks the connection off instead."""
Starting = Callable[[str, Sequence[int]], Answer]
"""Told the key and the descriptors of log and result, which are closed then."""

BROKEN_OFF: Answer = None
STARTED: Answer = (frames.OK, frames.pack(7, 0))


def refusal(code: bytes) -> Answer:
    return frames.ERROR, frames.pack(code, 0, b"")


class Double:
    """Answers as it is told. `listed` are those that it says it has, each with when it began."""

    def __init__(self, box: Sandbox) -> None:
        self.box = box
        self.starts: list[str] = []
        """Keys, in the order they came."""
        self.listed: dict[str, int] = {}
        self.starting: Starting = lambda _key, _descriptors: STARTED
        self.listing: Callable[[], Answer] = self.rows
        self.version = PROTOCOL_VERSION
        """That it answers with, but to HELLO."""

    def rows(self) -> Answer:
        rows = [
            field for key, begun in self.listed.items() for field in (key.encode(), 0, 0, begun, 0)
        ]
        return frames.OK, frames.pack(0, *rows)

    def answer(self, kind: int, payload: bytes, descriptors: Sequence[int]) -> Answer:
        if kind == frames.HELLO:
            return frames.OK, b""
        if kind == frames.LIST:
            return self.listing()
        if kind == frames.START:
            key = frames.unpack(payload)[0].decode()
            self.starts.append(key)
            return self.starting(key, descriptors)
        if kind == frames.SIGNAL:
            return refusal(frames.EXECUTION_NOT_FOUND)
        return refusal(frames.LIMIT_REACHED)  # Nothing is prepared.

    def serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                peer, _ = listener.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        buffer, came = bytearray(), list[int]()
        with peer, suppress(OSError):
            while True:
                data, descriptors, _, _ = socket.recv_fds(peer, 1 << 16, 64)
                if not data:
                    return
                buffer += data
                came += descriptors
                while parsed := frames.split(buffer):
                    _, kind, count, number, payload = parsed
                    mine, came = came[:count], came[count:]
                    try:
                        answer = self.answer(kind, payload, mine)
                    finally:
                        for each in mine:
                            os.close(each)
                    if answer is None:
                        return
                    version = PROTOCOL_VERSION if kind == frames.HELLO else self.version
                    peer.sendall(frames.frame(version, answer[0], number, answer[1]))


def begin(log: int, key: str) -> None:
    """Write what an agent writes before the process is what it is to become."""
    os.write(log, formats.record(formats.KIND_START, 0, 10**18, 0, len(key)) + key.encode())


@contextmanager
def doubled(node: Node) -> Iterator[Double]:
    """An environment that has such an agent."""
    uid = "".join(secrets.choice(ALPHABET) for _ in range(16))
    tree = node.state / "git" / "worktrees" / uid / "tree"
    tree.mkdir(parents=True)
    path = node.runtime / "a" / uid
    double = Double(Sandbox(uid, Handle(driver="local", node=NODE, uid=uid).encode(), tree))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(100)
        thread = threading.Thread(target=double.serve, args=(listener,))
        thread.start()
        try:
            yield double
        finally:
            path.unlink()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
