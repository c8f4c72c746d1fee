"""Starts a command: fork, a few steps in the child, exec."""

import errno
import os
import resource

from agent import frames
from agent.inside import system

_OOM_SCORE = b"500"
"""Higher than the agent's: memory runs out for commands first."""

_STEPS = (b"set up", b"cgroup", b"cwd", b"exec")


class SpawnError(Exception):
    """The command was not started. Holds the code of the reply, errno, message."""

    def __init__(self, code: bytes, number: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.errno = number


def spawn(
    argv: list[bytes],
    env: dict[bytes, bytes],
    cwd: bytes,
    output: tuple[int, int],
    cgroups: list[int],
    processes: int,
) -> int:
    """Start `argv` in a session of its own; returns its pid once it runs.

    `output` are its stdout and stderr; `processes` its RLIMIT_NPROC, 0 for none.
    """
    if not argv or b"\0" in b"".join(argv) or b"\0" in cwd:
        raise SpawnError(frames.BAD_REQUEST, errno.EINVAL, "argv is empty or has a NUL")
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    report, told = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            pid = os.fork()
        except OSError as error:
            raise SpawnError(frames.LIMIT_REACHED, error.errno or 0, "no more processes") from error
        if pid == 0:
            _child(argv, env, cwd, (null, *output), cgroups, processes, told)
        os.close(told)
        told = -1
        said = os.read(report, 64)
    finally:
        os.close(report)
        os.close(null)
        if told >= 0:
            os.close(told)
    if said:
        os.waitpid(pid, 0)
        step, number = said.split()
        raise _failure(int(step), int(number))
    return pid


def _child(
    argv: list[bytes],
    env: dict[bytes, bytes],
    cwd: bytes,
    stdio: tuple[int, int, int],
    cgroups: list[int],
    processes: int,
    told: int,
) -> None:
    step = 0
    try:
        for number, descriptor in enumerate((*stdio, told)):
            os.dup2(descriptor, number, inheritable=number < 3)
        os.setsid()
        step = 1
        for descriptor in cgroups:
            os.write(descriptor, b"0")
        step = 0
        system.close_from(4)
        for number in (system.SIGPIPE, system.SIGXFSZ, system.SIGCHLD):
            system.default_signal(number)
        # Our own files in /proc belong to root while we are not dumpable; exec ends that anyway.
        system.set_dumpable(1)
        _write("/proc/self/oom_score_adj", _OOM_SCORE)
        if processes:
            resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
        step = 2
        os.chdir(cwd)
        step = 3
        _exec(argv, env)
    except OSError as error:
        os.write(3, b"%d %d" % (step, error.errno or 0))
    except BaseException:  # Whatever it is, the child must not go on as an agent.
        os.write(3, b"%d 0" % step)
    finally:
        os._exit(127)


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


def _failure(step: int, number: int) -> SpawnError:
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
