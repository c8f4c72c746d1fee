"""Stops the processes of a sandbox by signals, where no control group can freeze them.

All of them descend from the agent, which is pid 1 of theirs: it inherits who loses its parent. What
is stopped is written down before, so that another launcher can let it go on.
"""

import contextlib
import os
import signal
from pathlib import Path
from typing import Final, NamedTuple

from agent.inside.connection import EXHAUSTED

_STILL: Final = frozenset("TtZX")
"""States of a thread that does nothing until somebody lets it."""
_ENDED: Final = frozenset("ZX")
_CLEAN: Final = 2
"""Looks in a row that find nothing running: in one, what was just made may have been missed."""


class Process(NamedTuple):
    parent: int
    state: str
    start: int


class Stopping:
    """The processes of one sandbox. `file` tells which of them are stopped by us."""

    def __init__(self, agent: int, file: Path) -> None:
        self._agent = agent
        self._file = file
        self._ours: set[tuple[int, int]] = set()
        self._clean = 0

    def look(self) -> bool:
        """Stop what runs; true when nothing does. To be called until it is."""
        found = _descend(self._agent, _processes())
        running = [(pid, each.start) for pid, each in found if not _still(pid)]
        fresh = [each for each in running if each not in self._ours]
        if fresh:
            with self._file.open("a") as file:
                file.writelines(f"{pid} {start}\n" for pid, start in fresh)
            self._ours.update(fresh)
        for pid, start in running:
            _send(pid, start, signal.SIGSTOP)
        self._clean = 0 if running else self._clean + 1
        return self._clean >= _CLEAN


def go_on(file: Path) -> bool:
    """Let go on what was stopped and written down in `file`; false where nothing was.

    Raises OSError when not all of it could be: call it again.
    """
    try:
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        return False
    # Who is the last to be stopped goes on first: no parent sees a child that is stopped.
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            pid, start = map(int, line.split())
            _send(pid, start, signal.SIGCONT)
    file.unlink(missing_ok=True)
    return True


def _processes() -> dict[int, Process]:
    found = {}
    for name in os.listdir("/proc"):
        if name.isdecimal() and (seen := _stat(f"/proc/{name}/stat")):
            found[int(name)] = seen
    return found


def _stat(path: str) -> Process | None:
    """None: it is gone."""
    try:
        with open(path, "rb") as file:
            words = file.read().rpartition(b")")[2].split()
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        return None
    return Process(int(words[1]), words[0].decode(), int(words[19]))


def _descend(agent: int, all_: dict[int, Process]) -> list[tuple[int, Process]]:
    """The agent and all below it, parents first, without those that have ended."""
    children: dict[int, list[int]] = {}
    for pid, each in all_.items():
        children.setdefault(each.parent, []).append(pid)
    found, todo = [], [agent] if agent in all_ else []
    for pid in todo:
        found.append((pid, all_[pid]))
        todo += children.get(pid, ())
    return found


def _still(pid: int) -> bool:
    """Whether no thread of it runs. One in the middle of a write is not still."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        return True
    seen = [_stat(f"/proc/{pid}/task/{each}/stat") for each in threads]
    return all(each is None or each.state in _STILL for each in seen)


def _send(pid: int, start: int, number: int) -> None:
    """Signal a process, unless it is another one by now. Raises OSError for want of descriptors."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        return
    try:
        seen = _stat(f"/proc/{pid}/stat")
        if seen and seen.start == start and seen.state not in _ENDED:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)
