"""The commands of this sandbox: those that run or did, those that are to, those prepared for."""

import errno
import os
import time

from agent import frames
from agent.inside.becoming import Becoming
from agent.inside.connection import Connection
from agent.inside.execution import Execution, Waiter
from agent.inside.limits import Limited, Limits, Processes
from agent.inside.log import Log
from agent.inside.means import means_of
from agent.inside.prepared import Preparations, Prepared, joins
from agent.inside.redaction import Secrets
from agent.inside.spawn import Blank, SpawnError, blank, check
from agent.inside.tree import Tree

_MAX_RUNNING = 256
_REMEMBERED = 256
"""Ended executions kept, so that a second start finds them."""
_FORGOTTEN = 4
"""Of those that are looked at in one go: whoever has processes left is kept."""

Terms = tuple[Secrets, Limited]
"""On which one is started."""


class Commands:
    """Starts them, each once, and remembers them."""

    def __init__(self, processes: Processes) -> None:
        self.executions: dict[bytes, Execution] = {}
        self.becoming: dict[bytes, Becoming] = {}
        """Those that do not run yet, by the same ids."""
        self.prepared = Preparations(processes)
        self.limits = Limits()
        self._rlimit = processes.rlimit

    def set_up(self, prepared: Prepared) -> None:
        """What was being prepared has something to say: answer who asked for it."""
        number, prepared.number = prepared.number, 0
        try:
            prepared.blank.ready()
        except SpawnError as error:
            self.prepared.remove(prepared)
            refuse(prepared.owner, number, error.code, error.errno, str(error))
        else:
            prepared.owner.reply(frames.OK, number, b"")

    def reaped(self, pid: int) -> None:
        """A child has ended: one that waits may have been killed, as anything in here."""
        if waiting := self.prepared.of(pid):
            if waiting.number:  # Before anybody read what it said.
                self.set_up(waiting)
            if self.prepared.of(pid):
                self.prepared.remove(waiting)

    def start(
        self,
        asked: Waiter,
        fields: list[bytes],
        fds: list[int],
        terms: Terms,
        wanted: list[bytes],
    ) -> None:
        execution_id, cwd, merge, timeout, idle, grace, unified, *program = fields
        if self._existing(*asked, execution_id):
            return
        self._allow(fds[0])
        exact = unified != b"0"
        command = [execution_id, cwd, merge, timeout, idle, grace, *program]
        waiting = blank(joins(fds, exact=exact), self._rlimit, means_of(wanted))
        self._become(command, waiting, fds, terms, exact=exact)
        self.becoming[execution_id].waiting.append(asked)

    def run(self, client: Connection, number: int, fields: list[bytes], terms: Terms) -> None:
        token, execution_id, *_ = fields
        if self._existing(client, number, execution_id):
            return
        prepared = self.prepared.take(token)
        try:
            self._allow(prepared.descriptors[0], prepared.blank)
            command, fds = fields[1:], prepared.descriptors
            self._become(command, prepared.blank, fds, terms, exact=prepared.exact)
            self.becoming[execution_id].waiting.append((client, number))
        finally:
            prepared.close()

    def find(self, execution_id: bytes) -> Execution:
        if execution_id not in self.executions:
            raise SpawnError(frames.EXECUTION_NOT_FOUND, 0, "no such execution")
        return self.executions[execution_id]

    def go_on(self, now: float) -> list[Becoming]:
        """See how far those are that become a command; those of which it is decided."""
        decided = [key for key, each in self.becoming.items() if each.over(now)]
        settled = [self.becoming.pop(key) for key in decided]
        for each in settled:
            self._settle(each)
        return settled

    @property
    def busy(self) -> bool:
        """Whether one runs, or is to."""
        return bool(self.becoming) or any(not each.ended for each in self.executions.values())

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
        self, command: list[bytes], waiting: Blank, fds: list[int], terms: Terms, *, exact: bool
    ) -> None:
        """Let `waiting` run a command. Takes from `fds` what the execution keeps."""
        execution_id, cwd, merged, timeout, idle, grace, count, *rest = command
        merge = merged != b"0"
        secrets, limited = terms
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

    def _forget(self) -> None:
        ended = [each for each in self.executions.values() if each.ended and not each.waiting]
        for each in ended[: min(_FORGOTTEN, max(0, len(ended) - _REMEMBERED))]:
            del self.executions[each.id]
            if _has_left(each):
                self.executions[each.id] = each  # The others come first the next time.
                continue
            each.tree.close()
            if each.input:
                each.input.shut()  # Some may wait there for what does not come any more.


def _has_left(ended: Execution) -> bool:
    """Whether something of it is alive, or may be: without a descriptor to spare nobody knows."""
    try:
        return any(stream.open for stream in ended.streams) or bool(ended.tree.members())
    except OSError:
        return True


def refuse(client: Connection, number: int, code: bytes, failure: int, message: str) -> None:
    """Reply that it was not done, and why."""
    client.reply(frames.ERROR, number, frames.pack(code, failure, message.encode()))
