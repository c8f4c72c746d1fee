"""Children of the agent that do what takes long with files, over descriptors they are given.

What they read is as hostile as commands are. They are in the sandbox, have its limits, and own no
more than commands do; the agent only forks and reaps them.
"""

import os

from agent import frames
from agent.inside import system
from agent.inside.connection import Connection
from agent.inside.spawn import SpawnError

_MOST = 32
"""Of them at once."""
_DESCRIPTORS = {frames.READ_ARCHIVE: 2, frames.WRITE_ARCHIVE: 2, frames.WATCH: 1}
_FIRST = 3


class Helpers:
    """Those that live."""

    def __init__(self) -> None:
        self.pids: set[int] = set()

    def answer(
        self, client: Connection, kind: int, number: int, fields: list[bytes], fds: list[int]
    ) -> bool:
        """Begin or end one and reply; false when the request is not about helpers.

        The descriptors stay the caller's. Raises SpawnError, ValueError.
        """
        if kind == frames.END_HELPER:
            if (pid := int(fields[0])) in self.pids:
                system.kill(pid, system.SIGKILL)
            client.reply(frames.OK, number, b"")
        elif kind in _DESCRIPTORS:
            if len(fds) != _DESCRIPTORS[kind]:
                raise ValueError("descriptors missing")
            client.reply(frames.OK, number, frames.pack(self._begin(kind, fields, fds)))
        else:
            return False
        return True

    def _begin(self, kind: int, fields: list[bytes], fds: list[int]) -> int:
        if len(self.pids) >= _MOST:
            raise SpawnError(frames.LIMIT_REACHED, 0, "too many at once")
        try:
            pid = os.fork()
        except OSError as error:
            raise SpawnError(frames.LIMIT_REACHED, error.errno or 0, "no more processes") from error
        if pid == 0:
            _child(kind, fields, fds)
        self.pids.add(pid)
        return pid


def _child(kind: int, fields: list[bytes], fds: list[int]) -> None:
    """Never returns."""
    try:
        os.setsid()
        system.default_signal(system.SIGCHLD)
        if system.can_separate():
            system.separate()  # Else it could look into commands that have secrets.
        moved = [os.dup(fd) for fd in fds] if min(fds) < _FIRST + len(fds) else fds
        for at, fd in enumerate(moved):
            if fd != _FIRST + at:
                os.dup2(fd, _FIRST + at)
        null = os.open("/dev/null", os.O_RDWR)
        for number in range(_FIRST):
            os.dup2(null, number)
        system.close_from(_FIRST + len(fds))
        # What only helpers need is loaded in none but them: the agent starts without it.
        from agent.inside import helping

        helping.run(kind, fields, range(_FIRST, _FIRST + len(fds)))
    finally:
        os._exit(1)
