"""The listener, on the loopback of the sandbox, that whoever is outside accepts on.

We only hold it: what connects waits in it while nobody accepts.
"""

import os
from _socket import AF_INET, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, socket

_SO_ACCEPTCONN = 30
_BACKLOG = 128
_LOOPBACK = "127.0.0.1"


class WayOut:
    """At most one listener."""

    def __init__(self) -> None:
        self._listener: socket | None = None

    def open(self, port: int) -> int:
        """A copy of the listener, which is made unless it is there. Raises OSError."""
        if self._listener and not self._usable(self._listener, port):
            self.close()
        if self._listener is None:
            listener = socket(AF_INET, SOCK_STREAM)
            try:
                listener.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
                listener.bind((_LOOPBACK, port))
                listener.listen(_BACKLOG)
            except OSError:
                listener.close()
                raise
            self._listener = listener
        return os.dup(self._listener.fileno())

    def close(self) -> None:
        """Connects are refused from now on, once it is closed outside, too."""
        if self._listener:
            self._listener.close()
        self._listener = None

    @staticmethod
    def _usable(listener: socket, port: int) -> bool:
        """It is of that port, and was not shut down outside."""
        listening = listener.getsockopt(SOL_SOCKET, _SO_ACCEPTCONN)
        return bool(listening) and listener.getsockname()[1] == port
