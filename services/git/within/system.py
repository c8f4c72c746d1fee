"""Opens files below a directory, whatever a program does to the paths meanwhile."""

import ctypes
import os
from typing import Final

_OPENAT2: Final = 437
"""The same number on every architecture: it is newer than their unification."""
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08

_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_beneath(root: int, path: bytes, flags: int) -> int:
    """Open `path` below the directory `root`; no link on the way is followed, nor at its end.

    Raises OSError: ELOOP where there is a link.
    """
    how = _How(flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS)
    descriptor: int = _libc.syscall(
        _OPENAT2, root, path or b".", ctypes.byref(how), ctypes.sizeof(how)
    )
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return descriptor
