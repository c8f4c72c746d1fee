"""What waits on the standard input. It is never read: it may be somebody else's."""

import array
import fcntl
import os
import stat
import sys
import termios
from contextlib import suppress
from typing import Final

_INT: Final = "i"


def waiting_input() -> bool:
    """Whether a pipe has bytes that nobody has read, or a file more than was read of it."""
    with suppress(OSError, ValueError):
        descriptor = sys.stdin.fileno()
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode):
            return found.st_size > os.lseek(descriptor, 0, os.SEEK_CUR)
        if stat.S_ISFIFO(found.st_mode) or stat.S_ISSOCK(found.st_mode):
            count = array.array(_INT, [0])
            fcntl.ioctl(descriptor, termios.FIONREAD, count)
            return count[0] > 0
    return False
