"""Opens files below a directory, whatever a program does to the paths meanwhile."""

import ctypes
import os
from collections.abc import Sequence
from typing import Final

_OPENAT2: Final = 437
"""The same number on every architecture: it is newer than their unification."""
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4
_ORDERED: Final = frozenset({0xEF53, 0x58465342})
"""ext4 and XFS, by the numbers that statfs tells."""

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


def wait_written(descriptor: int) -> None:
    """Until the content of a file is on the disk; its metadata comes with the next sync there.

    Raises OSError.
    """
    if _sync_range(descriptor, _WAIT_BEFORE | _WRITE | _WAIT_AFTER) != 0:
        os.fsync(descriptor)


def write_out(descriptors: Sequence[int], directory: str) -> None:
    """Until the contents of files below `directory` are on the disk, all at once.

    Where its file system keeps the order of its journal, their metadata comes with the next sync
    there, elsewhere now. Raises OSError.
    """
    ordered = is_ordered(directory)
    for descriptor in descriptors:
        _sync_range(descriptor, _WRITE)
    for descriptor in descriptors:
        if ordered:
            wait_written(descriptor)
        else:
            os.fsync(descriptor)


def _sync_range(descriptor: int, flags: int) -> int:
    nothing = ctypes.c_int64(0)
    done: int = _libc.sync_file_range(descriptor, nothing, nothing, ctypes.c_uint(flags))
    return done


def is_ordered(path: str) -> bool:
    """Whether a sync there covers all metadata that came before it, whatever file it was of."""
    about = (ctypes.c_long * 64)()
    found = _libc.statfs(os.fsencode(path), ctypes.byref(about))
    return found == 0 and about[0] in _ORDERED
