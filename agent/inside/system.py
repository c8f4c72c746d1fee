"""System calls and signals that the light part of the standard library does not have."""

# The modules `signal` and `ctypes` cost milliseconds of start, and memory; their C halves do not.
import _ctypes
import _signal  # type: ignore[import-not-found]
import os
import struct

SIGINT: int = _signal.SIGINT
SIGKILL: int = _signal.SIGKILL
SIGTERM: int = _signal.SIGTERM
SIGCONT: int = _signal.SIGCONT
SIGSTOP: int = _signal.SIGSTOP
SIGCHLD: int = _signal.SIGCHLD
SIGPIPE: int = _signal.SIGPIPE
SIGXFSZ: int = _signal.SIGXFSZ

F_SETPIPE_SZ = 1031
_FIONREAD = 0x541B
RENAME_NOREPLACE = 1
TIOCSCTTY, TIOCSWINSZ = 0x540E, 0x5414

_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP, _SECCOMP_FILTER = 22, 2
_STEP_BYTES = 8
_PR_SET_NO_NEW_PRIVS = 38
_SYS_LANDLOCK_CREATE, _SYS_LANDLOCK_ADD, _SYS_LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION = 1
_REFER, _MAKE_BLOCK = 1 << 13, 1 << 11
_PATH_BENEATH = 1
_SYS_CLOSE_RANGE = 436
_REPLACED = 0x08 | 0x80
"""IN_CLOSE_WRITE, IN_MOVED_TO."""


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001
    """An int of C."""

    _type_ = "i"


class _Char(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001
    """A char of C."""

    _type_ = "c"


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
_inotify_rm_watch = _of_libc("inotify_rm_watch")
_renameat2 = _of_libc("renameat2")


def set_dumpable(value: int) -> None:
    """With 0, nobody of our uid may trace us or read our memory and descriptors."""
    if _prctl(_PR_SET_DUMPABLE, value, 0, 0, 0) != 0:
        raise _failed()


def filter_calls(program: bytes) -> None:
    """Have the kernel judge every system call from here on by this BPF, too. Raises OSError.

    Whoever has no_new_privs may do so.
    """
    fields = {"_type_": _Char, "_length_": len(program)}
    steps = type("_Steps", (_ctypes.Array,), fields).from_buffer_copy(program)  # type: ignore[attr-defined]
    told = struct.pack("@HP", len(program) // _STEP_BYTES, _ctypes.addressof(steps))
    if _prctl(_PR_SET_SECCOMP, _SECCOMP_FILTER, told, 0, 0) != 0:
        raise _failed()


def can_separate() -> bool:
    """Whether the kernel has what `separate` needs: Landlock, its second version."""
    version: int = _syscall(_SYS_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    return version >= 2


def separate() -> None:
    """From now on we and our children cannot look into any process but our children, and none of
    those that did this too can look into us: environment, memory, descriptors. Lasts over exec.

    That is what a Landlock domain does. It must restrict something: that is the making of block
    devices, which nobody here may; renames and links, which it forbids otherwise, are allowed.
    """
    if _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:  # As in every sandbox.
        raise _failed()
    handled = struct.pack("=Q", _REFER | _MAKE_BLOCK)
    rules: int = _syscall(_SYS_LANDLOCK_CREATE, handled, len(handled), 0)
    if rules < 0:
        raise _failed()
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    beneath = struct.pack("=Qi", _REFER, root)
    try:
        if _syscall(_SYS_LANDLOCK_ADD, rules, _PATH_BENEATH, beneath, 0):
            raise _failed()
        if _syscall(_SYS_LANDLOCK_RESTRICT, rules, 0):
            raise _failed()
    finally:
        os.close(root)
        os.close(rules)


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


def waiting(descriptor: int) -> int:
    """Bytes that can be read from a pipe now."""
    import fcntl  # Not needed before the first command.

    count: int = struct.unpack("i", fcntl.ioctl(descriptor, _FIONREAD, bytes(4)))[0]
    return count


def close_from(lowest: int, kept: list[int] | None = None) -> None:
    """Close every descriptor from `lowest` on but those that are `kept`."""
    for each in sorted(set(kept or ())):
        if each >= lowest:
            os.closerange(lowest, each)
            lowest = each + 1
    if _syscall(_SYS_CLOSE_RANGE, lowest, 0xFFFFFFFF, 0) != 0:
        os.closerange(lowest, 65536)


def notice_of(directory: bytes) -> int:
    """A descriptor that is readable when a file of the directory was replaced; -1 for none."""
    descriptor: int = _inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor >= 0 and _inotify_add_watch(descriptor, directory, _REPLACED) < 0:
        os.close(descriptor)
        return -1
    return descriptor


def inotify() -> int:
    """A queue of inotify; -1 when this user has too many."""
    queue: int = _inotify_init1(os.O_CLOEXEC)
    return queue


def inotify_add(queue: int, path: bytes, mask: int) -> int:
    """A watch, or less than 0: the number of the error, negative."""
    watch: int = _inotify_add_watch(queue, path, mask)
    return watch if watch >= 0 else -_ctypes.get_errno()


def inotify_remove(queue: int, watch: int) -> None:
    """One that is gone by itself is no error."""
    _inotify_rm_watch(queue, watch)


def rename_exclusive(source: bytes, source_dir: int, target: bytes, target_dir: int) -> None:
    """Rename, unless the target exists. Raises OSError."""
    if _renameat2(source_dir, source, target_dir, target, RENAME_NOREPLACE) != 0:
        raise _failed()


def _failed() -> OSError:
    number = _ctypes.get_errno()
    return OSError(number, os.strerror(number))
