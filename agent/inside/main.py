"""The agent: pid 1 of a sandbox. Starts commands, records their output, opens files.

Its socket is inherited as descriptor 3; no name of it is visible inside. Nothing that a client or
a command does makes it wait or grow. It trusts the kernel and the launcher only.
"""

import os
import select
import sys
import time
from _socket import socket

from agent import frames
from agent.inside import system
from agent.inside.commands import refuse
from agent.inside.connection import EXHAUSTED, REST, Connection
from agent.inside.limits import Processes
from agent.inside.requests import Requests

LOCK = 0
"""Where the launcher left the lock of the worktree: held until we end, and by no command."""
LISTENER = 3
_MAX_CLIENTS = 64
_CLOSE_WAIT = 3600.0


class Agent:
    """The loop. `idle_timeout` in seconds, 0 is never."""

    def __init__(self, idle_timeout: float, processes: Processes) -> None:
        self._listener = socket(fileno=LISTENER)
        self._listener.setblocking(False)
        self._clients: list[Connection] = []
        self._accept_at = 0.0
        """Before, nobody can be accepted."""
        self._requests = Requests(processes)
        self._idle_timeout = idle_timeout
        self._busy_at = time.monotonic()
        self._childless = True
        self._worked_at = self._busy_at
        self._woken, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        system.wake_on_children(waker)

    def run(self) -> None:
        """Returns when the agent was idle for long enough, or is to leave: the sandbox ends."""
        self._requests.follower.look()
        while not self._idle():
            self._wait()
            if not self._childless:
                self._worked_at = time.monotonic()
            self._reap()
            self._tick()

    def _wait(self) -> None:
        """One round of poll: whatever is ready is served."""
        poll = select.poll()
        serve = {}
        poll.register(self._woken, select.POLLIN)
        if time.monotonic() >= self._accept_at:
            poll.register(LISTENER, select.POLLIN)
        for execution in self._requests.commands.executions.values():
            for stream in execution.streams:
                if stream.open and not stream.held_until:
                    poll.register(stream.descriptor, select.POLLIN)
                    serve[stream.descriptor] = (execution, stream)
        entries = {
            execution.input.descriptor: execution.input
            for execution in self._requests.commands.executions.values()
            if execution.input and execution.input.waiting_for_room
        }
        for descriptor in entries:
            poll.register(descriptor, select.POLLOUT)
        unready = self._requests.commands.prepared.unready()
        for descriptor in unready:
            poll.register(descriptor, select.POLLIN)
        becoming = self._requests.commands.becoming.values()
        pending = {fd: event for each in becoming for fd, event in each.blank.descriptors()}
        for descriptor, event in pending.items():
            poll.register(descriptor, event)
        follower = self._requests.follower
        watched = follower.descriptors()
        for descriptor, event in watched.items():
            poll.register(descriptor, event)
        clients = {}
        for client in self._clients:
            if not client.open:  # It was answered since the last look at them.
                continue
            descriptor = client.socket.fileno()
            poll.register(descriptor, select.POLLIN | (client.sending and select.POLLOUT))
            clients[descriptor] = client
        ready = poll.poll(self._patience())
        now = time.monotonic()
        for descriptor, event in ready:
            if descriptor in serve:
                execution, stream = serve[descriptor]
                try:
                    if stream.open:  # Else its execution was broken off in this round.
                        execution.heard(stream, now)
                except Exception as error:
                    execution.break_off(error)
            elif descriptor in clients:
                self._serve(clients[descriptor], event)
            elif descriptor in entries:
                entries[descriptor].tick(now, room=True)
            elif descriptor in unready:
                self._requests.commands.set_up(unready[descriptor])
            elif descriptor in watched:
                follower.told()
            elif descriptor in pending:
                continue  # Those are seen to in every round.
            elif descriptor == LISTENER:
                self._accept()
            else:
                os.read(self._woken, 4096)

    def _patience(self) -> int:
        """Milliseconds until something is due."""
        executions = self._requests.commands.executions.values()
        times = [due for each in executions if (due := each.deadline())]
        times += [each.deadline() for each in self._requests.commands.becoming.values()]
        waiting = (self._requests.follower, self._requests.held)
        times += [due for each in waiting if (due := each.deadline())]
        if self._idle_timeout:
            times.append(self._busy_at + self._idle_timeout)
        if self._accept_at > time.monotonic():
            times.append(self._accept_at)
        due = min(times, default=time.monotonic() + _CLOSE_WAIT)
        return max(0, int((due - time.monotonic()) * 1000) + 1)

    def _accept(self) -> None:
        try:
            descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        except OSError as error:
            if error.errno in EXHAUSTED:
                self._accept_at = time.monotonic() + REST
            return
        client = Connection(socket(fileno=descriptor))
        if len(self._clients) >= _MAX_CLIENTS or not client.from_outside():
            client.close()
        else:
            self._clients.append(client)

    def _serve(self, client: Connection, event: int) -> None:
        if event & select.POLLOUT:
            client.flush()
        if client.open and event & ~select.POLLOUT:
            for kind, number, payload, descriptors in client.receive():
                self._requests.receive(client, kind, number, payload, descriptors)

    def _reap(self) -> None:
        """Take every child that has ended, ours or an orphan."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self._childless = True
                return
            if pid == 0:
                self._childless = False
                return
            if pid in self._requests.removals:
                self._removed(pid, status)
                continue
            if pid == self._requests.follower.pid:
                self._requests.follower.reaped(status)
                continue
            self._requests.helpers.pids.discard(pid)
            self._requests.commands.reaped(pid)
            used = int(usage.ru_utime * 1e6), int(usage.ru_stime * 1e6), usage.ru_maxrss
            for each in self._requests.commands.becoming.values():
                if each.blank.pid == pid:
                    each.reaped(status, used)
            for execution in self._requests.commands.executions.values():
                if execution.pid == pid and execution.running:
                    execution.exited(status, used, time.monotonic())

    def _removed(self, pid: int, status: int) -> None:
        client, number = self._requests.removals.pop(pid)
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 4
        if code == 0:
            client.reply(frames.OK, number, b"")
        else:
            refuse(client, number, frames.OS_ERROR, code, os.strerror(code))

    def _tick(self) -> None:
        now = time.monotonic()
        self._requests.go_on(now)
        for execution in list(self._requests.commands.executions.values()):
            try:
                told = execution.tick(now)
            except Exception as error:
                execution.break_off(error)
                continue
            for client, number in told:
                client.reply(frames.OK, number, b"")
        self._clients = [client for client in self._clients if client.open]
        self._requests.commands.prepared.drop_orphans()
        running = any(not each.ended for each in self._requests.commands.executions.values())
        self._requests.follower.watch(running=running)
        if self._clients or not self._childless:
            self._busy_at = now

    def _idle(self) -> bool:
        if self._requests.leave(time.monotonic() - self._worked_at):
            return True
        if not self._idle_timeout or time.monotonic() < self._busy_at + self._idle_timeout:
            return False
        self._accept()  # Who connected just now is served; who comes after this is refused.
        return not self._clients


def main() -> int:
    """Arguments: the Python version expected, idle timeout (ms), how many processes there may be,
    whether a control group counts them, uid for `ps`."""
    system.set_dumpable(0)
    system.default_signal(system.SIGINT)
    os.umask(0o022)
    os.set_inheritable(LOCK, False)
    _, expected, idle_timeout, most, counted, _uid = sys.argv
    version = ".".join(map(str, sys.version_info[:3]))
    if version != expected:
        os.write(2, f"the sandbox loads Python {version} instead of {expected}\n".encode())
        return 1
    agent = Agent(int(idle_timeout) / 1000, Processes(int(most), counted=counted != "0"))
    agent.run()
    return 0
