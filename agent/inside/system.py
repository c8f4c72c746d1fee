"""System calls and signals that the light part of the standard library does not have."""

# The module `signal` costs milliseconds of start; its C half has no type stubs.
import _signal  # type: ignore[import-not-found]
import ctypes
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
_libc = ctypes.CDLL(None, use_errno=True)


def set_dumpable(value: int) -> None:
    """With 0, nobody of our uid may trace us or read our memory and descriptors."""
    if _libc.prctl(_PR_SET_DUMPABLE, value, 0, 0, 0) != 0:
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
    if _libc.syscall(_SYS_CLOSE_RANGE, lowest, 0xFFFFFFFF, 0) != 0:
        os.closerange(lowest, 65536)


def notice_of(directory: bytes) -> int:
    """A descriptor that is readable when a file of the directory was replaced; -1 for none."""
    descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor >= 0 and _libc.inotify_add_watch(descriptor, directory, _REPLACED) < 0:
        os.close(descriptor)
        return -1
    return descriptor


def rename_exclusive(source: bytes, source_dir: int, target: bytes, target_dir: int) -> None:
    """Rename, unless the target exists. Raises OSError."""
    if _libc.renameat2(source_dir, source, target_dir, target, RENAME_NOREPLACE) != 0:
        raise _failed()


def _failed() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
