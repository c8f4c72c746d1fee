"""The one program of a warm cell: starts commands and workers there, as process 1 of it.

    service → agent   ("run", number, argv, env, cwd, constants, descriptor numbers)
                      ("work", number), with the worker's end of a socket
                      ("kill", number)
    agent → service   READY; then `ENDED` with number and exit code, of a command or a worker

As process 1 it gets no signal from the others in the cell; they cannot look into it either,
as it is not dumpable. When a command has ended nothing that it started is left.
"""

import _ctypes
import _signal  # type: ignore[import-not-found]
import _socket
import marshal
import os
import resource
import select
import struct
import sys

from services.git.within import frames, spawn

READY = b"ready"
ENDED = struct.Struct("!Ii")
_SIGINT, _SIGKILL, _SIGCHLD = 2, 9, 17
_PR_SET_DUMPABLE = 4
_NOT_STARTED = 127


class Agent:
    def __init__(self, control: _socket.socket) -> None:
        self._control = control
        self._incoming = frames.Incoming(control)
        self._running: dict[int, int] = {}
        """Numbers of commands and workers, by their pids."""
        self._ended: list[tuple[int, int]] = []
        self._woken, self._wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> None:
        """Do what the service says until it closes its end, which ends all that is here."""
        _signal.signal(_SIGCHLD, lambda *_: None)
        _signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        frames.send(self._control, READY)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._woken:
                    os.read(self._woken, 4096)
                    self._reap()
                elif (frame := self._incoming.read()) is None:
                    return
                else:
                    self._do(*frame)

    def _do(self, data: bytes, descriptors: list[int]) -> None:
        what, number, *rest = marshal.loads(data)  # noqa: S302 - from the service alone.
        try:
            if what == "run":
                self._run(number, descriptors, *rest)
            elif what == "work":
                self._work(number, descriptors[0])
            else:
                for pid, known in self._running.items():
                    if known == number:
                        os.kill(pid, _SIGKILL)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _run(
        self,
        number: int,
        descriptors: list[int],
        argv: list[bytes],
        env: dict[bytes, bytes],
        cwd: bytes,
        constants: dict[bytes, bytes],
        numbers: list[int],
    ) -> None:
        try:
            spawn.prepare(constants)
            self._running[spawn.spawn(argv, env, cwd, descriptors, numbers)] = number
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            said = f"cannot start {os.fsdecode(argv[0])}: {why}\n"
            try:
                os.write(descriptors[2], os.fsencode(said))
            except OSError:
                pass  # Nobody wants to know.
            self._end(number, _NOT_STARTED)

    def _work(self, number: int, descriptor: int) -> None:
        from services.git.within import worker  # Takes as long as the rest together.

        pid = os.fork()
        if pid != 0:
            self._running[pid] = number
            return
        try:
            os.setsid()
            _signal.set_wakeup_fd(-1)
            _signal.signal(_SIGCHLD, 0)
            for own in (self._control.fileno(), self._woken, self._wakes):
                os.close(own)
            worker.serve(_socket.socket(fileno=descriptor))
        finally:
            os._exit(0)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            number = self._running.pop(pid, None)
            if number is not None:
                self._ended.append((number, os.waitstatus_to_exitcode(status)))
        if not self._ended:
            return
        if strays := spawn.strays(self._running):
            for pid in strays:  # Their ends bring us here again.
                os.kill(pid, _SIGKILL)
            return
        for number, code in self._ended:
            self._end(number, code)
        self._ended.clear()

    def _end(self, number: int, code: int) -> None:
        frames.send(self._control, ENDED.pack(number, code))


def main() -> None:
    """Arguments: the number of the control socket, and bytes of address space per process."""
    control = _socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)
    _not_dumpable()
    _signal.signal(_SIGINT, 1)
    os.umask(0o022)
    _limit(int(sys.argv[2]))
    Agent(control).serve()


def _limit(memory: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or memory < hard:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _not_dumpable() -> None:
    # By hand: `ctypes` takes a quarter of the whole start.
    class Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001
        _type_ = "i"

    class Function(_ctypes.CFuncPtr):
        _flags_ = _ctypes.FUNCFLAG_CDECL
        _restype_ = Int

    prctl = Function(
        _ctypes.dlsym(
            _ctypes.dlopen(None, 0),  # type: ignore[arg-type]
            "prctl",
        )
    )
    if prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError("the agent cannot be hidden from its commands")
