"""Commands that are on their way: a process was told what to become, and has not become it yet.

That takes a millisecond, or for ever, as whatever runs here may stop it. Nobody waits for it.
"""

import os
import time

from agent import formats, frames
from agent.inside import system
from agent.inside.connection import Connection
from agent.inside.execution import Execution
from agent.inside.input import Input
from agent.inside.spawn import Blank
from agent.inside.stream import Stream
from agent.inside.tree import is_stopped

_PATIENCE = 5.0
"""Seconds after which a process is given up that somebody keeps from becoming its command."""
_SLOW = 60.0
"""The same for one that is only slow, as everything is where very much runs."""
_PUSH = 0.02
"""Seconds after which one that may have been stopped is told to go on."""


class Becoming:
    """One of them. Time is monotonic seconds, passed in."""

    def __init__(self, execution: Execution, blank: Blank, outputs: list[int], now: float) -> None:
        self.execution = execution
        self.blank = blank
        self.waiting: list[tuple[Connection, int]] = []
        """Who asked for it; the first one made it begin."""
        self.later: list[tuple[Connection, int, int, bytes]] = []
        """Requests about it, to be answered when it runs: connection, kind, number, payload."""
        self._outputs = outputs
        self._entry = blank.take_entry()
        self._give_up = now + _PATIENCE
        self._stop_at = now + _SLOW
        self._push_at = now
        self._stopped = False
        self._status: tuple[int, tuple[int, int, int]] | None = None

    def deadline(self) -> float:
        return self._push_at

    def reaped(self, status: int, usage: tuple[int, int, int]) -> None:
        self._status = status, usage

    def over(self, now: float) -> bool:
        """Go on with it; true when it is decided."""
        if self._status:
            return True
        decided = self.blank.advance()
        if decided and not self.blank.failed:
            if self._stopped:
                system.kill(self.blank.pid, system.SIGCONT)
            return True
        if now >= self._push_at:
            self._push(now, failed=decided)
            self._push_at = now + _PUSH
        return False

    def _push(self, now: float, *, failed: bool) -> None:
        """Let it go on, or end it. Only one that stands still surely never runs its command."""
        pid = self.blank.pid
        if failed:  # Nothing of it is left when that is told.
            system.kill(pid, system.SIGKILL)
        elif now >= self._give_up and is_stopped(pid):
            if not self.blank.advance():
                self.blank.abandon()
        elif now >= self._stop_at:
            self._stopped = True
            system.kill(pid, system.SIGSTOP)
        else:
            system.kill(pid, system.SIGCONT)

    def settle(self) -> None:
        """Let the execution begin. Raises SpawnError when it never ran, and no trace is left.

        One that dies on the way, as everything here may be killed at any time, was started.
        """
        execution = self.execution
        try:
            self.blank.settle()
        except BaseException:
            execution.log.undo()
            execution.log.close()
            execution.tree.close()
            for descriptor in (*self._outputs, self._entry):
                if descriptor >= 0:
                    os.close(descriptor)
            raise
        numbers = (formats.TERMINAL,) if self.blank.terminal else (formats.STDOUT, formats.STDERR)
        if self.blank.terminal:  # Which writes a line's end as two bytes.
            lines = {each.replace(b"\n", b"\r\n") for each in execution.hidden}
            execution.hidden = (*execution.hidden, *lines.difference(execution.hidden))
        execution.streams = [
            Stream(reading, number, execution.log, execution.hidden)
            for reading, number in zip(self._outputs, numbers, strict=False)
        ]
        if self._entry >= 0:
            execution.input = Input(self._entry, terminal=self.blank.terminal)
        execution.tree.leader = execution.pid = execution.group = self.blank.pid
        execution.tree.session = self.blank.pid
        if self._status:
            execution.exited(*self._status, time.monotonic())

    def tell(self, pid: int) -> None:
        """Answer all who asked for it."""
        for existing, (client, number) in enumerate(self.waiting):
            client.reply(frames.OK, number, frames.pack(pid, min(existing, 1)))
