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
from agent.inside.helpers import Helpers
from agent.inside.limits import Limited, Limits, parse
from agent.inside.listing import alive, executions
from agent.inside.log import Log
from agent.inside.means import OPEN_STARTS, means_of, wanted_of
from agent.inside.paths import OutsideError
from agent.inside.ports import connecting
from agent.inside.prepared import Preparations, Prepared, joins
from agent.inside.redaction import NONE, Secrets, taken
from agent.inside.spawn import SEPARATE, Blank, SpawnError, blank, check
from agent.inside.tree import Tree, processes
from agent.inside.wayout import WayOut

_MAX_RUNNING = 256
_REMEMBERED = 256
"""Ended executions kept, so that a second start finds them."""
_FORGOTTEN = 4
"""Of those that are looked at in one go: whoever has processes left is kept."""
_FRESH = 2.0
"""Seconds in which whoever had it started comes with a command."""
_ABOUT_ONE = (frames.SIGNAL, frames.CANCEL, frames.EXCEEDED, *inputs.REQUESTS)
"""Requests about what runs."""


class Requests:
    """Answers requests; holds the executions."""

    def __init__(self, max_processes: int) -> None:
        self.executions: dict[bytes, Execution] = {}
        self.becoming: dict[bytes, Becoming] = {}
        """Those that do not run yet, by the same ids."""
        self.removals: dict[int, tuple[Connection, int]] = {}
        """Processes of ours that remove directories, and who waits for them."""
        self.helpers = Helpers()
        self.prepared = Preparations(max_processes)
        self.follower = Follower(max_processes)
        self.held = Held()
        self.way_out = WayOut()
        self.leaving: list[tuple[Connection, int]] = []
        """Who wants this to end, if nothing runs."""
        self.limits = Limits()
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
            elif kind in OPEN_STARTS or kind in (frames.START, frames.START_SECRETLY):
                secrets, wanted = self._secrets(kind, fields, 1), wanted_of(kind, fields)
                self._start((client, number), fields, fds, secrets, wanted)
            elif kind == frames.PREPARE:
                self.prepared.add(client, number, fields, fds)
            elif kind in (frames.RUN, frames.RUN_SECRETLY):
                self._run(client, number, fields, self._secrets(kind, fields, 2))
            elif kind == frames.LIMITS:
                self.limits.add(client, fields[0], parse(fields[1:]))
                client.reply(frames.OK, number, b"")
            elif kind in _ABOUT_ONE and fields[0] in self.becoming:
                self.becoming[fields[0]].later.append((client, kind, number, payload))
            elif kind == frames.SIGNAL:
                self._signal(client, number, fields)
            elif kind == frames.CANCEL:
                self._end(client, number, formats.EXIT_CANCELLED, fields)
            elif kind == frames.EXCEEDED:
                self._end(client, number, formats.EXIT_LIMITED, fields)
            elif kind in inputs.REQUESTS:
                found = self._find(fields[0]).input
                inputs.answer(found, (client, number), kind, fields[1:], time.monotonic())
            elif kind == frames.LEAVE:
                self.leaving.append((client, number))
            elif kind == frames.LIST:
                client.reply(frames.OK, number, self._list())
            elif kind == frames.PROCESSES:
                known = self.executions
                asked = [known[each] for each in fields or known if each in known]
                client.reply(frames.OK, number, frames.pack(*alive(asked)))
            elif kind == frames.CONNECT:
                client.reply(frames.OK, number, b"", connecting(*fields))
            elif kind == frames.REMOVE:
                self._remove(client, number, fields)
            elif kind in files.KINDS:
                client.reply(frames.OK, number, b"", files.answer(kind, fields))
            elif kind == frames.LISTEN:
                client.reply(frames.OK, number, b"", self.way_out.open(int(fields[0])))
            elif kind == frames.CLOSE_LISTENER:
                self.way_out.close()
                client.reply(frames.OK, number, b"")
            elif not self.helpers.answer(client, kind, number, fields, fds):
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

    def _secrets(self, kind: int, fields: list[bytes], at: int) -> Secrets:
        """Those of a start, taken out of its fields."""
        if kind in (frames.START, frames.RUN, frames.START_OPEN):
            return NONE
        if not SEPARATE:
            raise SpawnError(frames.UNPROTECTED, 0, "other commands could read them")
        return taken(fields, at)

    def _start(
        self,
        asked: Waiter,
        fields: list[bytes],
        fds: list[int],
        secrets: Secrets,
        wanted: list[bytes],
    ) -> None:
        execution_id, cwd, merge, timeout, idle, grace, unified, *program = fields
        if self._existing(*asked, execution_id):
            return
        self._allow(fds[0])
        exact = unified != b"0"
        command = [execution_id, cwd, merge, timeout, idle, grace, *program]
        waiting = blank(joins(fds, exact=exact), self._max_processes, means_of(wanted))
        self._become(command, waiting, fds, secrets, exact=exact)
        self.becoming[execution_id].waiting.append(asked)

    def _run(self, client: Connection, number: int, fields: list[bytes], secrets: Secrets) -> None:
        token, execution_id, *_ = fields
        if self._existing(client, number, execution_id):
            return
        prepared = self.prepared.take(token)
        try:
            self._allow(prepared.descriptors[0], prepared.blank)
            command, fds = fields[1:], prepared.descriptors
            self._become(command, prepared.blank, fds, secrets, exact=prepared.exact)
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

    def _allow(self, log: int, waiting: Blank | None = None) -> None:
        """Raises SpawnError when no command may be started with this log; `waiting` goes then."""
        running = sum(not each.ended for each in self.executions.values())
        many, begun = running + len(self.becoming) >= _MAX_RUNNING, os.fstat(log).st_size
        if waiting and (many or begun):
            waiting.drop()
        if many:
            raise SpawnError(frames.LIMIT_REACHED, 0, "too many executions")
        if begun:
            raise SpawnError(frames.ALREADY_STARTED, 0, "the log is not empty")

    def _become(
        self, command: list[bytes], waiting: Blank, fds: list[int], secrets: Secrets, *, exact: bool
    ) -> None:
        """Let `waiting` run a command. Takes from `fds` what the execution keeps."""
        execution_id, cwd, merged, timeout, idle, grace, count, *rest = command
        merge = merged != b"0"
        limited = self.limits.take(execution_id) or Limited()
        log = Log(fds[0], fds[1])
        log.limit = limited.output
        try:
            argv = rest[: int(count)]
            check(argv, cwd)
            env = dict(pair.split(b"=", 1) for pair in rest[int(count) :]) | secrets.variables
            unified = (fds[2], fds[3]) if exact else None
            limits = int(timeout), int(idle), int(grace)
            execution = Execution(execution_id, log, Tree(execution_id, unified), limits)
            execution.hidden = secrets.hidden
            log.start(execution_id)
        except BaseException:
            waiting.drop()
            raise
        for fd in {*fds[:2], *(unified or ())}:
            fds.remove(fd)  # The execution's own now.
        outputs = waiting.take_outputs(merge=merge)
        self.becoming[execution_id] = Becoming(execution, waiting, outputs, time.monotonic())
        waiting.become(argv, env, cwd, merge=merge, limits=limited.packed)

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
        self.limits.drop_orphans()
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
        for each in ended[: min(_FORGOTTEN, max(0, len(ended) - _REMEMBERED))]:
            del self.executions[each.id]
            if any(stream.open for stream in each.streams) or each.tree.members():
                self.executions[each.id] = each  # The others come first the next time.
            else:
                each.tree.close()

    def _find(self, execution_id: bytes) -> Execution:
        if execution_id not in self.executions:
            raise SpawnError(frames.EXECUTION_NOT_FOUND, 0, "no such execution")
        return self.executions[execution_id]

    def _signal(self, client: Connection, number: int, fields: list[bytes]) -> None:
        execution = self._find(fields[0])
        signal, scope = int(fields[1]), int(fields[2])
        if execution.ended and not execution.tree.members():
            raise SpawnError(frames.EXECUTION_NOT_FOUND, 0, "nothing of it is left")
        if scope == frames.TREE and signal == system.SIGKILL:
            execution.waiting.append((client, number))
            execution.kill(time.monotonic())
            return
        if scope == frames.TREE:
            execution.tree.signal(signal)
        elif not execution.running:
            group = execution.group if scope == frames.GROUP else 0
            if not (group and execution.tree.signal(signal, group)):
                raise SpawnError(frames.EXECUTION_NOT_FOUND, 0, "the execution has ended")
        elif scope == frames.GROUP:
            os.killpg(execution.pid, signal)
        else:
            os.kill(execution.pid, signal)
        client.reply(frames.OK, number, b"")

    def _end(self, client: Connection, number: int, kind: int, fields: list[bytes]) -> None:
        """End an execution, and say why in its exit; answered when it is over."""
        execution_id, why, grace = fields
        execution = self._find(execution_id)
        execution.stop(kind, why, int(grace) / 1000, time.monotonic())
        execution.waiting.append((client, number))

    def _list(self) -> bytes:
        starting = [each.execution for each in self.becoming.values()]
        rows = executions([*starting, *self.executions.values()])
        ours = self.prepared.pids() | self.helpers.pids
        return frames.pack(len(processes().keys() - ours), *rows)

    def _remove(self, client: Connection, number: int, fields: list[bytes]) -> None:
        path, recursive = fields
        pid = files.removing(path, recursive=recursive != b"0")
        if pid:
            self.removals[pid] = (client, number)
        else:
            client.reply(frames.OK, number, b"")


def refuse(client: Connection, number: int, code: bytes, failure: int, message: str) -> None:
    """Reply that it was not done, and why."""
    client.reply(frames.ERROR, number, frames.pack(code, failure, message.encode()))
