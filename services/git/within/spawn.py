"""Starts a command, and finds what a command leaves behind."""

import errno
import fcntl
import os
from collections.abc import Mapping, Sequence

# Python ignores SIGPIPE and SIGXFSZ, main SIGINT, and commands expect neither.
_DEFAULT_SIGNALS = (2, 13, 25)
_OWN_CHILDREN = "/proc/1/task/1/children"


def spawn(
    argv: list[bytes],
    env: Mapping[bytes, bytes],
    cwd: bytes,
    descriptors: Sequence[int],
    numbers: Sequence[int],
) -> int:
    """Start it in a session of its own; its pid. Raises OSError.

    The first three descriptors become its standard ones, the others get `numbers`.
    """
    targets = [0, 1, 2, *numbers]
    moved = list[int]()
    try:
        if numbers:
            # Out of the way: one may have the number that another is to get.
            above = max(targets) + 1
            for descriptor in descriptors:
                moved.append(fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, above))
            descriptors = moved
        os.chdir(cwd)
        return os.posix_spawn(
            _program(argv[0], env),
            argv,
            env,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, descriptor, target)
                for descriptor, target in zip(descriptors, targets, strict=True)
            ],
            setsid=True,
            setsigdef=_DEFAULT_SIGNALS,
        )
    finally:
        os.chdir("/")
        for descriptor in moved:
            os.close(descriptor)


def _program(name: bytes, env: Mapping[bytes, bytes]) -> bytes:
    if b"/" in name:
        return name
    for directory in env.get(b"PATH", b"").split(b":"):
        path = directory + b"/" + name
        if os.access(path, os.X_OK):
            return path
    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))


def prepare(constants: Mapping[bytes, bytes]) -> None:
    """Make files of the cell's memory be there as they should. A slash ends a directory's name."""
    for path, data in constants.items():
        if path.endswith(b"/"):
            os.makedirs(path, 0o755, exist_ok=True)
        elif not _has(path, data):
            os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
            new = b"%s.%d" % (path, os.getpid())
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(new, flags, 0o600)
            with open(descriptor, "wb") as file:
                file.write(data)
            os.rename(new, path)


def _has(path: bytes, data: bytes) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with open(descriptor, "rb") as file:
        return file.read(len(data) + 1) == data


def strays(mains: Mapping[int, object]) -> list[int]:
    """Children of this process 1 that belong to none of `mains`, which lead their sessions.

    What loses its parent becomes a child of process 1, and nothing gets into another's session.
    """
    found = []
    for pid in _children():
        if pid in mains:
            continue
        try:
            if os.getsid(pid) in mains:
                continue
        except ProcessLookupError:
            continue
        found.append(pid)
    return found


def _children() -> list[int]:
    try:
        with open(_OWN_CHILDREN, "rb") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:  # A kernel without CONFIG_PROC_CHILDREN.
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and _is_child(name)]


def _is_child(name: str) -> bool:
    try:
        with open(f"/proc/{name}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[1] == b"1"
    except OSError:
        return False
