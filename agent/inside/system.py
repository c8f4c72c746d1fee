"""System calls and signals that the light part of the standard library does not have."""

# The modules `signal` and `ctypes` cost milliseconds of start, and memory; their C halves do not.
import _ctypes
import _signal  # type: ignore[import-not-found]
import os

SIGINT: int = _signal.SIGINT
SIGKILL: int = _signal.SIGKILL
SIGTERM: int = _signal.SIGTERM
SIGCONT: int = _signal.SIGCONT
SIGCHLD: int = _signal.SIGCHLD
SIGPIPE: int = _signal.SIGPIPE
SIGXFSZ: int = _signal.SIGXFSZ

F_SETPIPE_SZ = 1031
RENAME_NOREPLACE = 1
TIOCSCTTY, TIOCSWINSZ = 0x540E, 0x5414

_PR_SET_DUMPABLE = 4
_SYS_CLOSE_RANGE = 436
_REPLACED = 0x08 | 0x80
"""IN_CLOSE_WRITE, IN_MOVED_TO."""


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001
    """An int of C."""

    _type_ = "i"


class _Function(_ctypes.CFuncPtr):
    """A function of C that returns an int; what it says of failures, `get_errno` tells."""

    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Int


_LIBC = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]


def _of_libc(name: str) -> _Function:
    return _Function(_ctypes.dlsym(_LIBC, name))


_prctl = _of_libc("prctl")
_syscall = _of_libc("syscall")
_inotify_init1 = _of_libc("inotify_init1")
_inotify_add_watch = _of_libc("inotify_add_watch")
_renameat2 = _of_libc("renameat2")


def set_dumpable(value: int) -> None:
    """With 0, nobody of our uid may trace us or read our memory and descriptors."""
    if _prctl(_PR_SET_DUMPABLE, value, 0, 0, 0) != 0:
        raise _failed()


def default_signal(number: int) -> None:
    """Give a signal its default action, which pid 1 is immune to."""
    _signal.signal(number, _signal.SIG_DFL)


def wake_on_children(descriptor: int) -> None:
    """Write a byte to `descriptor` for each SIGCHLD."""
    _signal.signal(SIGCHLD, lambda _number, _frame: None)
    _signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)


def kill(pid: int, number: int) -> None:
    """Signal a child of ours that was not reaped; one that has ended takes no notice."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def close_from(lowest: int) -> None:
    """Close every descriptor from `lowest` on."""
    if _syscall(_SYS_CLOSE_RANGE, lowest, 0xFFFFFFFF, 0) != 0:
        os.closerange(lowest, 65536)


def notice_of(directory: bytes) -> int:
    """A descriptor that is readable when a file of the directory was replaced; -1 for none."""
    descriptor: int = _inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor >= 0 and _inotify_add_watch(descriptor, directory, _REPLACED) < 0:
        os.close(descriptor)
        return -1
    return descriptor


def rename_exclusive(source: bytes, source_dir: int, target: bytes, target_dir: int) -> None:
    """Rename, unless the target exists. Raises OSError."""
    if _renameat2(source_dir, source, target_dir, target, RENAME_NOREPLACE) != 0:
        raise _failed()


def _failed() -> OSError:
    number = _ctypes.get_errno()
    return OSError(number, os.strerror(number))
