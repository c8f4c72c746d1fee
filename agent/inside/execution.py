"""One command from its start until its result is written."""

import os
import time

from agent import formats, frames
from agent.inside import system
from agent.inside.connection import EXHAUSTED, REST, Connection
from agent.inside.input import Input
from agent.inside.log import Log
from agent.inside.stream import Stream
from agent.inside.tree import Tree

_DRAIN = 0.25
"""Seconds after the command's end for which those who still hold its output are heard."""
_QUIET = 0.05
"""The same when they say nothing."""
_SWEEP = 0.005
"""Seconds between two looks at a tree that is being killed."""

Waiter = tuple[Connection, int]
"""A connection and the number of its request."""


class Execution:
    """State of one command. Time is monotonic seconds, passed in."""

    def __init__(
        self, execution_id: bytes, log: Log, tree: Tree, limits: tuple[int, int, int]
    ) -> None:
        self.id = execution_id
        self.log = log
        self.tree = tree
        self.streams: list[Stream] = []
        self.input: Input | None = None
        self.pid = 0
        self.group = 0
        """Its process group; others may be left in it when it has ended."""
        self.hidden: tuple[bytes, ...] = ()
        """Values that are masked in the output."""
        self.start_ns = time.time_ns()
        self.ended = False
        self.waiting: list[Waiter] = []
        """Who is told when nothing of the tree is left (and, of a cancel, the result written)."""
        self._timeout, self._idle_timeout, self._grace = (value / 1000 for value in limits)
        self._began = self._last_output = time.monotonic()
        self._status: tuple[int, int, int, int] | None = None
        self._exited = 0.0
        self._end_ns = 0
        self._ending: tuple[int, bytes] | None = None
        self._kill_at = 0.0
        self._sweep_at = 0.0
        self._again_at = 0.0

    def exited(self, status: int, usage: tuple[int, int, int], now: float) -> None:
        """The command's process was reaped. `usage`: user and system CPU in us, peak in KiB."""
        self.tree.leader = 0
        self._status = (status, *usage)
        self._exited = now
        self._end_ns = time.time_ns()
        for stream in self.streams:
            stream.hurry()

    @property
    def running(self) -> bool:
        """Its process is there, so that its pid can be signalled."""
        return self.pid != 0 and self._status is None

    def stop(self, kind: int, text: bytes, grace: float, now: float) -> None:
        """End the tree and, unless the command has ended, say why in the exit.

        The first reason stands. Raises OSError when the tree cannot be seen: nothing has changed.
        """
        if not self._sweep_at:
            self.tree.signal(system.SIGTERM)
            self._kill_at = now + grace
            self._sweep_at = now
        if self._ending is None and self._status is None:
            self._ending = (kind, text)

    def kill(self, now: float) -> None:
        """Kill the tree now; `waiting` are told when nothing is left."""
        self._kill_at = now
        self._sweep_at = self._sweep_at or now

    def deadline(self) -> float:
        """When `tick` must be called at the latest; 0 is never."""
        times = [self._sweep_at, *(stream.held_until for stream in self.streams if stream.open)]
        times += [self.input.deadline()] if self.input else []
        if self._status is None and self._ending is None:
            times += [self._timeout and self._began + self._timeout]
            times += [self._idle_timeout and self._last_output + self._idle_timeout]
            times += [self.log.exceeded and self._last_output]
        elif self._status is not None and not self.ended and self._waits_for_no_tree():
            times += [self._drained_at()]
        due = min((each for each in times if each), default=0.0)
        return due and max(due, self._again_at)

    def _waits_for_no_tree(self) -> bool:
        return not self._sweep_at or self._ending is None

    def tick(self, now: float) -> list[Waiter]:
        """Do what is due. Returns who is to be told that it is over.

        What cannot be done for want of descriptors is due a little later.
        """
        try:
            return self._tick(now)
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            self._again_at = now + REST
            return []

    def _tick(self, now: float) -> list[Waiter]:
        if self.input:
            self.input.tick(now)
        for stream in self.streams:
            if stream.open and stream.held_until and now >= stream.held_until:
                self._recorded(stream.look(now), now)
        if self._status is None and self._ending is None:
            if self._timeout and now >= self._began + self._timeout:
                self.stop(formats.EXIT_TIMED_OUT, b"timeout", self._grace, now)
            elif self._idle_timeout and now >= self._last_output + self._idle_timeout:
                self.stop(formats.EXIT_TIMED_OUT, b"idle_output", self._grace, now)
            elif self.log.exceeded:  # It could not be stopped when that was seen.
                self.stop(formats.EXIT_LIMITED, frames.OUTPUT, self._grace, now)
        if self._sweep_at and now >= self._sweep_at:
            self._sweep(now)
        swept = self._sweep_at == 0.0
        due = self._status and not self.ended and (swept or self._ending is None)
        if due and self._drained(now):
            self._finish(now)
        if swept and self.waiting and (self.ended or self._ending is None):
            told, self.waiting = self.waiting, []
            return told
        return []

    def heard(self, stream: Stream, now: float) -> None:
        """Read a stream that has something."""
        self._recorded(stream.read(now), now)

    def _recorded(self, something: bool, now: float) -> None:
        if something:
            self._last_output = now
        if self.log.exceeded and not self.ended:
            try:
                self.stop(formats.EXIT_LIMITED, frames.OUTPUT, self._grace, now)
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                self._again_at = now + REST

    def break_off(self, error: Exception) -> None:
        """After an error of ours, which must not end every command here: end this one.

        Its result stays blank, so that it counts as lost.
        """
        told = f"{type(error).__name__}: {error}\n"[:500].encode()
        self.ended, self.pid, self._sweep_at = True, 0, 0.0
        self._status = self._status or (0, 0, 0, 0)
        for stream in self.streams:
            stream.discard(lost=True)
        shut = self.input.shut if self.input else int
        ends = (self.log.close, self.tree.close, shut, lambda: os.write(2, told))
        for end in (lambda: self.tree.signal(system.SIGKILL), *ends):
            try:
                end()
            except Exception:  # noqa: S112 # Whatever can still be done, is.
                continue
        for stream in self.streams:
            try:
                stream.close()
            except OSError:
                continue

    def _drained(self, now: float) -> bool:
        return not any(stream.open for stream in self.streams) or now >= self._drained_at()

    def _drained_at(self) -> float:
        quiet = max(self._exited, self._last_output) + _QUIET
        return min(self._exited + _DRAIN, quiet)

    def _sweep(self, now: float) -> None:
        late = now >= self._kill_at
        left = self.tree.signal(system.SIGKILL) if late else self.tree.members()
        self._sweep_at = now + _SWEEP * (1 if late else 4) if left or self.running else 0.0

    def _finish(self, now: float) -> None:
        for stream in self.streams:
            while stream.open and stream.read(now) and now < self._exited + _DRAIN:
                now = time.monotonic()
            stream.discard()
        assert self._status is not None
        status, user, system_time, peak = self._status
        core = 0
        if os.WIFSIGNALED(status):
            kind, number, core = formats.EXIT_SIGNAL, os.WTERMSIG(status), os.WCOREDUMP(status)
        else:
            kind, number = formats.EXIT_CODE, os.WEXITSTATUS(status)
        text = b""
        if self.log.exceeded and self._ending is None:  # Seen after its end only; more was cut.
            self._ending = (formats.EXIT_LIMITED, frames.OUTPUT)
        if self._ending:
            kind, text = self._ending
        if self.input:
            self.log.note_input(self.input.taken, closed=self.input.closed)
            self.input.shut()
        usage = (user, system_time, peak)
        self.log.finish((kind, core, number, self.start_ns, self._end_ns, *usage), text)
        self.log.close()
        self.ended = True
        self.pid = 0
        self.hidden = ()
        try:
            if not self.tree.members():
                self.tree.close()
        except OSError:  # For want of descriptors nobody knows: whoever forgets it closes it.
            return
