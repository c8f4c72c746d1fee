"""One sandbox, as the launcher knows it: its processes, found by what nobody can forge."""

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from agent.inside.connection import EXHAUSTED
from agent.launcher.start import is_agent, open_lock, start_time

_CHILD: Final = re.compile(rb'"child-pid": *(\d+)')
_PATIENCE: Final = 10.0
"""Seconds until a bwrap that says nothing is killed."""
_LAST_WORDS: Final = 2.0
"""The same when its sandbox has ended."""


class Sandbox:
    """One that was started and of which something may be left."""

    def __init__(self, uid: str, folder: Path, socket_path: Path) -> None:
        self.uid = uid
        self.folder = folder
        self.socket = socket_path
        self.started = time.time()
        self.agent_pid = 0
        self.ending = False
        self.lock = -1
        """Of its worktree: ours goes last, when the kernel has taken the mounts away as well."""
        self.then: list[Callable[[], None]] = []
        """Called when nothing is left."""
        self._deadline = time.monotonic() + _PATIENCE
        self._agent = -1
        self._monitor = -1

    def watch(self, pid: int) -> None:
        """`pid` is its bwrap. Raises OSError."""
        self._monitor = os.pidfd_open(pid)

    def adopt(self) -> None:
        """Find its bwrap again, if that lives."""
        try:
            meta = json.loads((self.folder / "meta").read_text())
            pid, began = int(meta["pid"]), int(meta["start"])
        except (OSError, ValueError, KeyError):
            return
        self.started = (self.folder / "meta").stat().st_mtime
        try:
            self.watch(pid)
        except OSError as error:
            if error.errno in EXHAUSTED:  # Nobody knows then whether it lives.
                raise
        if path := meta.get("lock"):
            with contextlib.suppress(OSError):
                self.lock = open_lock(path)
                fcntl.flock(self.lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if self._monitor >= 0 and start_time(pid) != began:
            os.close(self._monitor)
            self._monitor = -1

    def descriptors(self) -> Iterator[int]:
        """Readable when a process of it has ended."""
        yield from (each for each in (self._agent, self._monitor) if each >= 0)

    @property
    def settled(self) -> bool:
        """Nothing is expected but its end."""
        return self._agent >= 0 and not self.ending

    def look(self) -> bool:
        """See how it is. False when no process of it is left."""
        if not self.agent_pid:
            self._find_agent()
        was_there = self._agent >= 0
        self._agent, self._monitor = _alive(self._agent), _alive(self._monitor)
        if was_there and self._agent < 0:
            self._deadline = time.monotonic() + _LAST_WORDS
        if self._agent >= 0 and self.ending:
            kill(self._agent)
        elif self._monitor >= 0 and self._agent < 0 and time.monotonic() > self._deadline:
            kill(self._monitor)
        return self._agent >= 0 or self._monitor >= 0

    def _find_agent(self) -> None:
        try:
            told = _CHILD.search((self.folder / "status").read_bytes())
        except OSError:
            return
        if told is None:
            return
        pid = int(told[1])
        with contextlib.suppress(OSError):
            agent = os.pidfd_open(pid)
            if is_agent(pid, self.uid):
                self._agent, self.agent_pid = agent, pid
            else:
                os.close(agent)

    def unlock(self) -> None:
        if self.lock >= 0:
            os.close(self.lock)
        self.lock = -1

    def error(self) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / "err").read_text(errors="replace")[-2000:]
        return ""


def kill(pidfd: int) -> None:
    """Kill a process, which may have ended, and been reaped by its parent, since it was seen."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _alive(pidfd: int) -> int:
    """The descriptor, or -1, and closed, when its process has ended."""
    if pidfd < 0:
        return -1
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if poll.poll(0):
        os.close(pidfd)
        return -1
    return pidfd
