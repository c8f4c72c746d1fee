"""What the agent answers to each request."""

import errno
import os
import time

from agent import formats, frames
from agent.inside import files, system
from agent.inside import input as inputs
from agent.inside.becoming import Becoming
from agent.inside.connection import Connection
from agent.inside.execution import Execution, Waiter
from agent.inside.following import Follower
from agent.inside.held import Held, starts, subject
from agent.inside.log import Log
from agent.inside.means import means_of
from agent.inside.paths import OutsideError
from agent.inside.prepared import Preparations, Prepared, joins
from agent.inside.spawn import Blank, SpawnError, blank, check
from agent.inside.tree import Tree, processes

_MAX_RUNNING = 256
_REMEMBERED = 256
"""Ended executions kept, so that a second start finds them."""
_FRESH = 2.0
"""Seconds in which whoever had it started comes with a command."""
_ABOUT_ONE = (frames.SIGNAL, frames.CANCEL, *inputs.REQUESTS)


class Requests:
    """Answers requests; holds the executions."""

    def __init__(self, max_processes: int) -> None:
        self.executions: dict[bytes, Execution] = {}
        self.becoming: dict[bytes, Becoming] = {}
        """Those that do not run yet, by the same ids."""
        self.removals: dict[int, tuple[Connection, int]] = {}
        """Processes of ours that remove directories, and who waits for them."""
        self.prepared = Preparations(max_processes)
        self.follower = Follower(max_processes)
        self.held = Held()
        self.leaving: list[tuple[Connection, int]] = []
        """Who wants this to end, if nothing runs."""
        self._max_processes = max_processes
        self._began = time.monotonic()

    def receive(
        self, client: Connection, kind: int, number: int, payload: bytes, fds: list[int]
    ) -> None:
        """As `answer`, but what starts a command waits until the git inside has followed."""
        about, request = subject(kind, payload), (client, kind, number, payload, fds)
        waits = self.held.has(about) or (starts(kind) and self.follower.look(again=True))
        if not (waits and self.held.add(about, request, time.monotonic())):
            self.answer(*request)

    def answer(
        self, client: Connection, kind: int, number: int, payload: bytes, fds: list[int]
    ) -> None:
        """Do what is asked and reply; never raises. Closes descriptors that nobody took."""
        try:
            fields = frames.unpack(payload)
            if kind == frames.HELLO:
                client.reply(frames.OK, number, b"")
            elif kind in (frames.START, frames.START_OPEN):
                wanted = fields[7:10] if kind == frames.START_OPEN else []
                command = fields[:7] + fields[7 + len(wanted) :]
                self._start((client, number), command, fds, wanted)
            elif kind == frames.PREPARE:
                self.prepared.add(client, number, fields, fds)
            elif kind == frames.RUN:
                self._run(client, number, fields)
            elif kind in _ABOUT_ONE and fields[0] in self.becoming:
                self.becoming[fields[0]].later.append((client, kind, number, payload))
            elif kind == frames.SIGNAL:
                self._signal(client, number, fields)
            elif kind == frames.CANCEL:
                self._cancel(client, number, fields)
            elif kind in inputs.REQUESTS:
                found = self._find(fields[0]).input
                inputs.answer(found, (client, number), kind, fields[1:], time.monotonic())
            elif kind == frames.LEAVE:
                self.leaving.append((client, number))
            elif kind == frames.LIST:
                client.reply(frames.OK, number, self._list())
            elif kind == frames.OPEN:
                path, flags, mode, follow = fields
                fd = files.open_file(path, int(flags), int(mode), follow=follow != b"0")
                client.reply(frames.OK, number, b"", fd)
            elif kind == frames.REMOVE:
                self._remove(client, number, fields)
            elif kind == frames.MAKE_DIRECTORY:
                path, mode, parents = fields
                files.make_directory(path, int(mode), parents=parents != b"0")
                client.reply(frames.OK, number, b"")
            elif kind == frames.RENAME:
                source, target, replace = fields
                files.rename(source, target, replace=replace != b"0")
                client.reply(frames.OK, number, b"")
            else:
                refuse(client, number, frames.BAD_REQUEST, 0, "unknown request")
        except SpawnError as error:
            refuse(client, number, error.code, error.errno, str(error))
        except OutsideError:
            refuse(client, number, frames.PATH_OUTSIDE, 0, "the path leads out of the workspace")
        except OSError as error:
            refuse(client, number, frames.OS_ERROR, error.errno or 0, error.strerror or "failed")
        except (ValueError, IndexError, OverflowError):
            refuse(client, number, frames.BAD_REQUEST, errno.EINVAL, "malformed request")
        except Exception as error:  # An error of ours must not end every command here.
            os.write(2, f"{type(error).__name__}: {error}\n"[:500].encode())
            refuse(client, number, frames.OS_ERROR, errno.EIO, "the agent failed")
        finally:
            for fd in fds:
                os.close(fd)

    def set_up(self, prepared: Prepared) -> None:
        """What was being prepared has something to say: answer who asked for it."""
        number, prepared.number = prepared.number, 0
        try:
            prepared.blank.ready()
        except SpawnError as error:
            prepared.number = -1  # It ends by itself, and is forgotten when it is reaped.
            refuse(prepared.owner, number, error.code, error.errno, str(error))
        else:
            prepared.owner.reply(frames.OK, number, b"")

    def _start(
        self, asked: Waiter, fields: list[bytes], fds: list[int], wanted: list[bytes]
    ) -> None:
        execution_id, cwd, merge, timeout, idle, grace, unified, *program = fields
        if self._existing(*asked, execution_id):
            return
        self._allow(fds[0])
        exact = unified != b"0"
        command = [execution_id, cwd, merge, timeout, idle, grace, *program]
        means = means_of(wanted)
        waiting = blank(joins(fds, exact=exact), self._max_processes, means)
        self._become(command, waiting, fds, exact=exact, terminal=means.terminal)
        self.becoming[execution_id].waiting.append(asked)

    def _run(self, client: Connection, number: int, fields: list[bytes]) -> None:
        token, execution_id, *_ = fields
        if self._existing(client, number, execution_id):
            return
        prepared = self.prepared.take(token)
        try:
            try:
                self._allow(prepared.descriptors[0])
            except BaseException:
                prepared.blank.drop()
                raise
            command, fds = fields[1:], prepared.descriptors
            self._become(command, prepared.blank, fds, exact=prepared.exact)
            self.becoming[execution_id].waiting.append((client, number))
        finally:
            prepared.close()

    def _existing(self, client: Connection, number: int, execution_id: bytes) -> bool:
        """Whether it was started before; then this is answered, or will be when it runs."""
        if execution_id in self.becoming:
            self.becoming[execution_id].waiting.append((client, number))
        elif execution_id in self.executions:
            pid = self.executions[execution_id].pid
            client.reply(frames.OK, number, frames.pack(pid, 1))
        else:
            return False
        return True

    def _allow(self, log: int) -> None:
        """Raises SpawnError when no command may be started with this log."""
        running = sum(not each.ended for each in self.executions.values())
        if running + len(self.becoming) >= _MAX_RUNNING:
            raise SpawnError(frames.LIMIT_REACHED, 0, "too many executions")
        if os.fstat(log).st_size:
            raise SpawnError(frames.ALREADY_STARTED, 0, "the log is not empty")

    def _become(
        self,
        command: list[bytes],
        waiting: Blank,
        fds: list[int],
        *,
        exact: bool,
        terminal: bool = False,
    ) -> None:
        """Let `waiting` run a command. Takes from `fds` what the execution keeps."""
        execution_id, cwd, merged, timeout, idle, grace, count, *rest = command
        merge = merged != b"0"
        log = Log(fds[0], fds[1])
        try:
            argv = rest[: int(count)]
            check(argv, cwd)
            env = dict(pair.split(b"=", 1) for pair in rest[int(count) :])
            unified = (fds[2], fds[3]) if exact else None
            limits = int(timeout), int(idle), int(grace)
            execution = Execution(execution_id, log, Tree(execution_id, unified), limits)
            log.start(execution_id)
        except BaseException:
            waiting.drop()
            raise
        for fd in {*fds[:2], *(unified or ())}:
            fds.remove(fd)  # The execution's own now.
        outputs = waiting.take_outputs(merge=merge)
        self.becoming[execution_id] = Becoming(
            execution, waiting, outputs, time.monotonic(), terminal=terminal
        )
        waiting.become(argv, env, cwd, merge=merge)

    def leave(self) -> bool:
        """Tell who wants this to end whether it does: it must, if it is so."""
        if not self.leaving:
            return False
        fresh = not self.executions and time.monotonic() < self._began + _FRESH
        begun = fresh or self.becoming or self.held.deadline()
        running = any(not each.ended for each in self.executions.values())
        idle = not (begun or running or processes().keys() - self.prepared.pids())
        for client, number in self.leaving:
            client.reply(frames.OK, number, frames.pack(int(idle)))
        self.leaving.clear()
        return idle

    def go_on(self, now: float) -> None:
        """See how far those are that become a command, and let go what waits no longer."""
        for request in self.held.due(now, busy=self.follower.pid != 0):
            self.answer(*request)
        for execution_id, each in list(self.becoming.items()):
            if each.over(now):
                del self.becoming[execution_id]
                self._settle(each)

    def _settle(self, each: Becoming) -> None:
        try:
            each.settle()
        except (SpawnError, OSError, ValueError) as error:
            for client, number in each.waiting:
                if isinstance(error, SpawnError):
                    refuse(client, number, error.code, error.errno, str(error))
                else:
                    refuse(client, number, frames.OS_ERROR, errno.EIO, "it failed to start")
        else:
            self._forget()
            self.executions[each.execution.id] = each.execution
            each.tell(each.blank.pid)
        for request in each.later:
            self.answer(*request, [])

    def _forget(self) -> None:
        ended = [each for each in self.executions.values() if each.ended and not each.waiting]
        for each in ended[: max(0, len(ended) - _REMEMBERED)]:
            if not any(stream.open for stream in each.streams):
                each.tree.close()
                del self.executions[each.id]

    def _find(self, execution_id: bytes) -> Execution:
        if execution_id not in self.executions:
            raise SpawnError(frames.EXECUTION_NOT_FOUND, 0, "no such execution")
        return self.executions[execution_id]

    def _signal(self, client: Connection, number: int, fields: list[bytes]) -> None:
        execution = self._find(fields[0])
        signal, scope = int(fields[1]), int(fields[2])
        if scope == frames.TREE and signal == system.SIGKILL:
            execution.waiting.append((client, number))
            execution.kill(time.monotonic())
            return
        if scope == frames.TREE:
            execution.tree.signal(signal)
        elif not execution.running:
            raise SpawnError(frames.EXECUTION_NOT_FOUND, 0, "the execution has ended")
        elif scope == frames.GROUP:
            os.killpg(execution.pid, signal)
        else:
            os.kill(execution.pid, signal)
        client.reply(frames.OK, number, b"")

    def _cancel(self, client: Connection, number: int, fields: list[bytes]) -> None:
        execution = self._find(fields[0])
        execution.waiting.append((client, number))
        now = time.monotonic()
        execution.stop(formats.EXIT_CANCELLED, fields[1], int(fields[2]) / 1000, now)

    def _list(self) -> bytes:
        all_ = [each.execution for each in self.becoming.values()]
        rows = [field for each in (*all_, *self.executions.values()) for field in each.row()]
        return frames.pack(len(processes().keys() - self.prepared.pids()), *rows)

    def _remove(self, client: Connection, number: int, fields: list[bytes]) -> None:
        path, recursive = fields
        if files.remove(path):
            client.reply(frames.OK, number, b"")
        elif recursive == b"0":
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        else:
            self.removals[files.remove_apart(path)] = (client, number)


def refuse(client: Connection, number: int, code: bytes, failure: int, message: str) -> None:
    """Reply that it was not done, and why."""
    client.reply(frames.ERROR, number, frames.pack(code, failure, message.encode()))
