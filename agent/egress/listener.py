"""The listener of a sandbox: whether it is one, and accepting on it.

Whoever passed it may be hostile and keeps a copy: it can make it block at any moment, or accept
itself. So each has a thread, which nobody else waits for.
"""

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

_SO_NETNS_COOKIE: Final = 71
_STACK: Final = 512 << 10
_EXHAUSTED: Final = frozenset({errno.ENFILE, errno.EMFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE: Final = 0.1
"""Seconds without an attempt when there are no descriptors left."""


class WrongDescriptorError(ValueError):
    """It is not what the agent of a sandbox opens for us."""


def checked(descriptor: int) -> socket.socket:
    """The listener that it is; it is closed when it is none. Raises WrongDescriptorError.

    It must be TCP's, on the loopback of another network than ours: of ours it would be a
    listener of this host, whose callers we would take.
    """
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        raise WrongDescriptorError("not a socket") from None
    if problem := _problem(found):
        found.close()
        raise WrongDescriptorError(problem)
    return found


def _problem(found: socket.socket) -> str:
    option = found.getsockopt
    if option(socket.SOL_SOCKET, socket.SO_DOMAIN) != socket.AF_INET:
        return "not an IPv4 socket"
    if option(socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_STREAM:
        return "not a stream"
    if option(socket.SOL_SOCKET, socket.SO_PROTOCOL) != socket.IPPROTO_TCP:
        return "not TCP"
    if not option(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "not listening"
    if found.getsockname()[0] != "127.0.0.1":
        return "not on loopback"
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as ours:
        if _network(found) == _network(ours):
            return "of this host's network"
    return ""


def _network(found: socket.socket) -> bytes:
    """Which network namespace it is of. Linux before 5.14 cannot tell: then nothing is served."""
    try:
        return found.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    except OSError:
        return b""


def available() -> bool:
    """Whether this kernel can tell whose a listener is."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as ours:
        return bool(_network(ours))


class Accepting:
    """Accepts in a thread of its own, at most `most` that are not given back."""

    def __init__(
        self,
        listener: socket.socket,
        most: int,
        accepted: "Callable[[Accepting, socket.socket], None]",
    ) -> None:
        self._listener = listener
        self._accepted = accepted
        self._free = threading.Semaphore(most)
        self._closing = False
        threading.stack_size(_STACK)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def inode(self) -> int:
        """Tells whether another descriptor is the same listener."""
        return os.fstat(self._listener.fileno()).st_ino

    @property
    def going_on(self) -> bool:
        return self._thread.is_alive() and not self._closing

    def give_back(self) -> None:
        """One that was accepted has ended."""
        self._free.release()

    def close(self) -> bool:
        """Stop listening, for whoever else has the listener too; true when the thread has ended.

        Call it again until then: a hostile holder can make it listen anew.
        """
        self._closing = True
        self._free.release()
        if self._thread.is_alive():
            try:
                self._listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                return not self._thread.is_alive()
            return False
        self._listener.close()
        return True

    def _run(self) -> None:
        while True:
            self._free.acquire()
            try:
                connection = self._next()
            except OSError:
                return
            if connection is None or self._closing:
                return
            self._accepted(self, connection)

    def _next(self) -> socket.socket | None:
        """Raises OSError when it listens no longer."""
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:  # Somebody made it so, or took what was there.
                poll = select.poll()
                poll.register(self._listener, select.POLLIN)
                poll.poll(1000)
            except ConnectionError:
                continue
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                time.sleep(_PAUSE)
            else:
                connection.setblocking(False)
                return connection
        return None
