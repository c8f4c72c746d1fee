"""The terminal that a person sits at."""

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from cove.cli.console import Console

_SIZE: Final = 64 << 10
_LFLAG: Final = 3
"""Where the local modes are in what termios gives."""
_DEFAULT: Final = (24, 80)


class Keys:
    """Finds the keys that leave among what is typed."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._matched = 0

    def typed(self, data: bytes) -> tuple[bytes, bool]:
        """What of it is for the command, and whether the person leaves."""
        if not self._sequence:
            return data, False
        passed = bytearray()
        for byte in data:
            if byte != self._sequence[self._matched]:
                passed += self._sequence[: self._matched]
                self._matched = 0
            if byte == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    return bytes(passed), True
            else:
                passed.append(byte)
        return bytes(passed), False


def standard_input() -> int:
    """Its descriptor; -1 when it is closed."""
    with suppress(OSError, ValueError):
        return sys.stdin.fileno()
    return -1


def is_terminal(descriptor: int) -> bool:
    with suppress(OSError):
        return descriptor >= 0 and os.isatty(descriptor)
    return False


def size() -> tuple[int, int]:
    """Rows and columns of the terminal here."""
    for descriptor in (standard_input(), 1, 2):
        with suppress(OSError, ValueError):
            found = os.get_terminal_size(descriptor)
            if found.lines > 0 and found.columns > 0:
                return found.lines, found.columns
    return _DEFAULT


@contextmanager
def raw(descriptor: int, console: Console, *, keys: bool) -> Iterator[None]:
    """Output is shown as it is, and each of the `keys` comes so, until the block is left.

    Without `keys` those that end a program still do.
    """
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        if not keys:
            now = termios.tcgetattr(descriptor)
            now[_LFLAG] |= termios.ISIG
            termios.tcsetattr(descriptor, termios.TCSANOW, now)
        console.is_raw = True
        yield
    finally:
        console.is_raw = False
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


async def read(descriptor: int) -> bytes:
    """What comes next; nothing at the end. Can be cancelled, whatever it is."""
    if descriptor < 0:
        return b""
    loop = asyncio.get_running_loop()
    while True:
        ready = asyncio.Event()
        try:
            loop.add_reader(descriptor, ready.set)
        except PermissionError:  # A file, which never makes anybody wait.
            return await asyncio.to_thread(os.read, descriptor, _SIZE)
        try:
            await ready.wait()
            return os.read(descriptor, _SIZE)
        except BlockingIOError:  # Somebody else has read it.
            continue
        except OSError:  # The terminal is gone.
            return b""
        finally:
            loop.remove_reader(descriptor)
