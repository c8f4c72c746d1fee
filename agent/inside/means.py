"""What a command reads from and writes to: pipes, or a terminal."""

import errno
import os
import struct
from _collections_abc import Callable  # `collections` takes long to load.

from agent import frames
from agent.inside import system

OPEN_STARTS = (frames.START_OPEN, frames.START_OPEN_SECRETLY)
_PIPE_SIZE = 256 << 10
_SIZE = struct.Struct("4H")
"""Rows, columns, and what nobody uses any more."""


class Means:
    """Descriptors of both sides, made before the command is."""

    def __init__(self, theirs: tuple[int, int, int], outputs: list[int], entry: int = -1) -> None:
        self.theirs = theirs
        """Stdin, stdout, stderr; all the same of a terminal."""
        self.outputs = outputs
        """Where we read what they write."""
        self.entry = entry
        """Where we write what they read; -1 for nowhere."""

    @property
    def terminal(self) -> bool:
        return self.theirs[0] == self.theirs[1]

    def all(self) -> set[int]:
        return {each for each in (*self.theirs, *self.outputs, self.entry) if each >= 0}


def without_input() -> Means:
    """Two pipes, and nothing to read. Raises OSError, as all of these."""
    return _pipes(lambda: (os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1))


def with_input() -> Means:
    """Three pipes."""
    return _pipes(lambda: os.pipe2(os.O_CLOEXEC))


def terminal(rows: int, cols: int) -> Means:
    """A terminal of that size."""
    try:
        master, slave = os.openpty()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EIO):  # There are too many on this host.
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
        raise
    try:
        resize(master, rows, cols)
        os.set_blocking(master, False)
        entry = os.dup(master)
    except BaseException:
        os.close(master)
        os.close(slave)
        raise
    return Means((slave, slave, slave), [master], entry)


def wanted_of(kind: int, fields: list[bytes]) -> list[bytes]:
    """Takes out of the fields of a start what it says of its input; nothing where it has none."""
    if kind not in OPEN_STARTS:
        return []
    wanted = fields[7:10]
    del fields[7:10]
    return wanted


def means_of(wanted: list[bytes]) -> Means:
    """What a start asks for: nothing, or kind of input, rows and columns."""
    kind, rows, cols = map(int, wanted) if wanted else (0, 0, 0)
    if kind == frames.TERMINAL:
        return terminal(rows, cols)
    return with_input() if kind == frames.PIPE else without_input()


def resize(descriptor: int, rows: int, cols: int) -> None:
    """Give a terminal a size; the kernel tells the processes in its foreground."""
    import fcntl  # Not needed before the first command.

    fcntl.ioctl(descriptor, system.TIOCSWINSZ, _SIZE.pack(rows, cols, 0, 0))


def take_over_terminal(descriptor: int) -> None:
    """Make it the controlling terminal of this process, which leads a session."""
    import fcntl

    fcntl.ioctl(descriptor, system.TIOCSCTTY, 0)


def _pipes(make_stdin: Callable[[], tuple[int, int]]) -> Means:
    ends: list[int] = []
    try:
        stdin, entry = make_stdin()
        ends += [stdin, entry]
        for _ in range(2):
            ends += os.pipe2(os.O_CLOEXEC)
        _, _, out, write_out, err, write_err = ends
        for reading in (out, err):
            _prepare(reading)
        if entry >= 0:
            os.set_blocking(entry, False)
    except BaseException:
        for descriptor in ends:
            if descriptor >= 0:
                os.close(descriptor)
        raise
    return Means((stdin, write_out, write_err), [out, err], entry)


def _prepare(reading: int) -> None:
    import fcntl

    os.set_blocking(reading, False)
    try:
        fcntl.fcntl(reading, system.F_SETPIPE_SZ, _PIPE_SIZE)
    except OSError:  # The user's share of large pipes is used up; a small one works.
        return
