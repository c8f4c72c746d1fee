"""Starts a command in two steps: a process is forked and set up, then it is told what to become.

The first step takes long where control groups are joined, as the kernel waits for all processors
then. So it may be done ahead, before anybody knows of the command.
"""

import errno
import os
import resource
import select
from _collections_abc import Iterator  # `collections` takes long to load.

from agent import frames
from agent.inside import limits, system
from agent.inside.means import Means, take_over_terminal, without_input

_OOM_SCORE = b"500"
"""Higher than the agent's: memory runs out for commands first."""
_MOST_FILES = 16384
_SHARE_OF_FILES = 4
"""Descriptors on their way through sockets count for all processes of a uid together, and each may
send until there are more than its own limit. So a command's is this part of the agent's."""

SEPARATE = system.can_separate()
"""Whether no command can look into another one."""

_STEPS = (b"set up", b"cgroup", b"cwd", b"exec")
_REPORT, _ORDERS = 3, 4
_READY = b"+"
_BEGUN = b"!"


class SpawnError(Exception):
    """The command was not started. Holds the code of the reply, errno, message."""

    def __init__(self, code: bytes, number: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.errno = number


class Blank:
    """A process that waits for what it is to run. It does nothing else, and runs one thing."""

    def __init__(
        self,
        pid: int,
        report: int,
        orders: int,
        outputs: list[int],
        entry: int = -1,
        *,
        terminal: bool = False,
    ) -> None:
        self.terminal = terminal
        self.pid = pid
        self.report = report
        """Readable when it is set up, or cannot be."""
        self._orders = orders
        self._outputs = outputs
        self._entry = entry
        self._unsent = b""
        self._said = b""
        self._decided = False
        self._abandoned = False

    def ready(self) -> None:
        """Call when `report` is readable. Raises SpawnError when it could not be set up."""
        said = os.read(self.report, 64)
        if said != _READY:
            raise _failure(said.removeprefix(_READY))

    def become(
        self,
        argv: list[bytes],
        env: dict[bytes, bytes],
        cwd: bytes,
        *,
        merge: bool,
        limits: bytes = b"",
    ) -> None:
        """Tell it to run `argv`. Call `advance` then, until it is decided."""
        pairs = [key + b"=" + value for key, value in env.items()]
        self._unsent = frames.pack(frames.pack(cwd, int(merge), limits, len(argv), *argv, *pairs))
        os.set_blocking(self.report, False)
        system.kill(self.pid, system.SIGCONT)  # Whoever is here may have stopped it.

    def descriptors(self) -> Iterator[tuple[int, int]]:
        """What to poll for while it becomes something: its report ends when that is decided."""
        if not self._decided:
            yield self.report, 0
            if self._unsent:
                yield self._orders, select.POLLOUT

    @property
    def failed(self) -> bool:
        """It never ran; once it is decided."""
        return self._never_began or bool(self._error)

    @property
    def _never_began(self) -> bool:
        """Killed before, it has done nothing, whoever killed it."""
        return self._abandoned or bool(self._unsent) or not self._said.startswith(_BEGUN)

    @property
    def _error(self) -> bytes:
        return self._said.removeprefix(_BEGUN)

    def advance(self) -> bool:
        """Never waits; true when it is decided whether it runs."""
        try:
            self._tell()
            while not self._decided:
                piece = os.read(self.report, 64)
                self._said += piece.removeprefix(_READY)
                self._decided = not piece
        except BlockingIOError:
            return False
        return True

    def _tell(self) -> None:
        try:
            while self._unsent and not self._decided:
                self._unsent = self._unsent[os.write(self._orders, self._unsent) :]
        except BrokenPipeError:  # It died before it heard all, and so did nothing; it may say why.
            return

    def settle(self) -> None:
        """Call when it is decided, or it has ended. Raises SpawnError when it never ran."""
        self.advance()
        os.close(self._orders)
        os.close(self.report)
        if self._error:
            raise _failure(self._error)
        if self._never_began:
            raise SpawnError(frames.NOT_PREPARED, 0, "it was killed")

    def abandon(self) -> None:
        """Kill it while it stands still and is not decided, so that it never runs anything."""
        self._abandoned = True
        system.kill(self.pid, system.SIGKILL)

    def take_outputs(self, *, merge: bool) -> list[int]:
        """Reading ends of what it writes, the caller's from now on: stdout, and stderr if apart."""
        if merge and len(self._outputs) > 1:
            os.close(self._outputs.pop())
        return self._outputs

    def take_entry(self) -> int:
        """The writing end of what it reads, the caller's from now on; -1 for none."""
        entry, self._entry = self._entry, -1
        return entry

    def drop(self) -> None:
        """End it unused. Reaping it is the caller's."""
        system.kill(self.pid, system.SIGKILL)
        self.close()

    def close(self) -> None:
        """Give up all that is held of it."""
        for descriptor in (self.report, self._orders, *self._outputs, self.take_entry()):
            if descriptor >= 0:
                os.close(descriptor)


def blank(cgroups: list[int], processes: int, means: Means | None = None) -> Blank:
    """Fork a process in a session of its own; it joins `cgroups`, and waits.

    `processes` is its RLIMIT_NPROC, 0 for none; `means` what it reads and writes, which this
    closes when it fails. Raises SpawnError, OSError.
    """
    means = means or without_input()
    ends: list[int] = []
    try:
        for _ in range(2):
            ends += os.pipe2(os.O_CLOEXEC)
        report, told, orders, give = ends
        os.set_blocking(give, False)
        try:
            pid = os.fork()
        except OSError as error:
            raise SpawnError(frames.LIMIT_REACHED, error.errno or 0, "no more processes") from error
        if pid == 0:
            _child((*means.theirs, told, orders), cgroups, processes, terminal=means.terminal)
    except BaseException:
        for descriptor in (*ends, *means.all()):
            os.close(descriptor)
        raise
    for descriptor in (told, orders, *set(means.theirs)):
        os.close(descriptor)
    return Blank(pid, report, give, means.outputs, means.entry, terminal=means.terminal)


def check(argv: list[bytes], cwd: bytes) -> None:
    """Raises SpawnError for what no process can become."""
    if not argv or b"\0" in b"".join(argv) or b"\0" in cwd:
        raise SpawnError(frames.BAD_REQUEST, errno.EINVAL, "argv is empty or has a NUL")


def _child(
    descriptors: tuple[int, ...], cgroups: list[int], processes: int, *, terminal: bool
) -> None:
    """`descriptors` get the numbers 0 to 4."""
    step = 0
    report = descriptors[_REPORT]
    try:
        os.setsid()
        for number, descriptor in enumerate(descriptors):
            if descriptor != number:
                os.dup2(descriptor, number, inheritable=number < _REPORT)
        report = _REPORT
        # First of all, as joining takes long: what others write to, or read, is theirs to end.
        system.close_from(_ORDERS + 1, cgroups)
        step = 1
        for descriptor in cgroups:
            os.write(descriptor, b"0")
        step = 0
        system.close_from(_ORDERS + 1)
        if terminal:
            take_over_terminal(0)
        if SEPARATE:
            system.separate()
        for number in (system.SIGPIPE, system.SIGXFSZ, system.SIGCHLD):
            system.default_signal(number)
        # Our own files in /proc belong to root while we are not dumpable, and are nobody's to
        # open while we wait; exec makes us dumpable again.
        system.set_dumpable(1)
        _write("/proc/self/oom_score_adj", _OOM_SCORE)
        system.set_dumpable(0)
        if processes:
            resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
        files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _SHARE_OF_FILES, _MOST_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        _rehearse()
        os.write(report, _READY)
        argv, env, cwd, merge, limited = _parsed(_orders())
        os.write(report, _BEGUN)
        if limited:
            limits.apply(limited)
        if merge != b"0":
            os.dup2(1, 2)
        step = 2
        os.chdir(cwd)
        step = 3
        _exec(argv, env)
    except OSError as error:
        os.write(report, b"%d %d" % (step, error.errno or 0))
    except BaseException:  # Whatever it is, the child must not go on as an agent.
        os.write(report, b"%d 0" % step)
    finally:
        os._exit(127)


def _rehearse() -> None:
    """Do what is done later once for nothing, so that the memory it needs is our own by then."""
    argv, env, cwd, *_ = _parsed(frames.pack(b"/", 0, b"", 1, b"-", b"PATH=/proc/self/fd/-1:/proc"))
    os.chdir(cwd)
    try:
        _exec(argv, env)
    except OSError:
        return


def _parsed(orders: bytes) -> tuple[list[bytes], dict[bytes, bytes], bytes, bytes, bytes]:
    cwd, merge, limited, count, *rest = frames.unpack(orders)
    argv = rest[: int(count)]
    env = dict(pair.split(b"=", 1) for pair in rest[int(count) :])
    return argv, env, cwd, merge, limited


def _orders() -> bytes:
    """Wait for what to become; never returns when nothing comes any more."""
    data = b""
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "little"):
        piece = os.read(_ORDERS, 1 << 20)
        if not piece:
            os._exit(127)
        data += piece
    return data[4:]


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, data)
    os.close(descriptor)


def _exec(argv: list[bytes], env: dict[bytes, bytes]) -> None:
    program = argv[0]
    if b"/" in program:
        os.execve(program, argv, env)  # noqa: S606
    failure = FileNotFoundError(errno.ENOENT, "not on PATH")
    for folder in env.get(b"PATH", b"/usr/bin:/bin").split(b":") if program else ():
        try:
            os.execve((folder or b".") + b"/" + program, argv, env)  # noqa: S606
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            failure = error  # type: ignore[assignment]
    raise failure


def _failure(said: bytes) -> SpawnError:
    if not said:
        return SpawnError(frames.LIMIT_REACHED, 0, "it was killed before it began")
    step, number = map(int, said.split())
    if number in (errno.EAGAIN, errno.ENOMEM):
        return SpawnError(frames.LIMIT_REACHED, number, "no more processes or memory")
    if step == 2:
        return SpawnError(frames.CWD_NOT_FOUND, number, "the working directory cannot be entered")
    if step == 3 and number in (errno.ENOENT, errno.ENOTDIR):
        return SpawnError(frames.PROGRAM_NOT_FOUND, number, "program not found")
    if step == 3:
        return SpawnError(frames.PROGRAM_NOT_EXECUTABLE, number, os.strerror(number))
    what = _STEPS[step].decode() if step < len(_STEPS) else "start"
    return SpawnError(frames.OS_ERROR, number, f"{what}: {os.strerror(number)}")
