"""Sees to it that the git inside follows what git outside says, one child at a time."""

import os
import resource
import select
import time

from agent.inside import plumbing, system

_PATIENCE = 2.0
"""Seconds for which a lock inside is waited for, the first time."""
_LONGEST = 10.0
"""Seconds after which a child is killed; then that commit is not followed."""
_LOOK = 0.5
"""Seconds between two looks while commands run, where the kernel gives no notice."""


class Follower:
    """Looks when it is told to, and while commands run when something was said."""

    def __init__(self, processes: int) -> None:
        self.pid = 0
        """Of the child; 0 when nothing is on its way."""
        self._processes = processes
        self._there = os.path.isdir(os.path.dirname(plumbing.HEAD))
        self._settled = b""
        self._doing = b""
        self._tried = b""
        self._kill_at = 0.0
        self._late = False
        self._notice = -1
        self._look_at = 0.0

    def look(self, *, again: bool = False) -> bool:
        """Begin what is new; `again` tries what was locked once more. True while one is at it."""
        if not self._there:
            return False
        if self.pid:
            return True
        said = plumbing.read(plumbing.HEAD)
        if not said or said == self._settled or (said == self._tried and not again):
            return False
        if said == plumbing.read(plumbing.FOLLOWED):
            self._settled = said
            return False
        try:
            self._begin(said)
        except OSError:  # No more processes: the next command cannot be started either.
            return False
        return True

    def _begin(self, said: bytes) -> None:
        patience = 0.0 if said == self._tried else _PATIENCE
        pid = os.fork()
        if pid == 0:
            _child(said, patience, self._processes)
        self.pid, self._doing = pid, said
        self._kill_at = time.monotonic() + _LONGEST
        self._late = False

    def reaped(self, status: int) -> None:
        """The child has ended."""
        self.pid, self._tried = 0, self._doing
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else plumbing.AGAIN
        if code != plumbing.AGAIN or self._late:
            self._settled = self._doing
        self.look()

    def watch(self, *, running: bool) -> None:
        """Call in every round; `running` says whether commands are."""
        now = time.monotonic()
        if self.pid and now >= self._kill_at:
            self._kill_at = now + _LONGEST
            self._late = True
            try:
                os.killpg(self.pid, system.SIGKILL)
            except OSError:
                system.kill(self.pid, system.SIGKILL)
        if not (running and self._there):
            self._look_at = 0.0
        elif self._notice < 0 and not self._look_at:
            self._notice = system.notice_of(os.path.dirname(plumbing.HEAD))
            self._look_at = 0.0 if self._notice >= 0 else now + _LOOK
            self.look()
        elif self._look_at and now >= self._look_at:
            self._look_at = now + _LOOK
            self.look()

    def descriptors(self) -> dict[int, int]:
        """What to poll for."""
        return {self._notice: select.POLLIN} if self._notice >= 0 else {}

    def told(self) -> None:
        """Something was said."""
        try:
            os.read(self._notice, 4096)
        except BlockingIOError:
            return
        self.look()

    def deadline(self) -> float:
        """When `watch` must be called at the latest; 0 is never."""
        return min(
            (each for each in (self.pid and self._kill_at, self._look_at) if each), default=0
        )


def _child(said: bytes, patience: float, processes: int) -> None:
    """Never returns."""
    code = plumbing.BROKEN
    try:
        os.setsid()
        for number in (system.SIGPIPE, system.SIGXFSZ, system.SIGCHLD):
            system.default_signal(number)
        null = os.open("/dev/null", os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        system.close_from(3)
        if system.can_separate():
            system.separate()  # The git inside may be told by the workspace to run anything.
        if processes:
            resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
        os.chdir("/workspace")
        code = plumbing.follow(said, patience)
    except OSError:  # No more processes, or no space: another time it may work.
        code = plumbing.AGAIN
    finally:
        os._exit(code)
