"""Sandboxes that are held still for a while, so that their files can be read as of one moment.

Every one goes on at its deadline, whoever wanted it to stop; and all do when a launcher starts or
ends.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent.inside.connection import REST
from agent.launcher.cgroups import Cgroups
from agent.launcher.stopping import Stopping, go_on

SIGNALS: Final = "signals"

_PATIENCE: Final = 5.0
"""Seconds until all processes must be still."""
_LOOK: Final = 0.005

Told = Callable[[str], None]
"""Called with what went wrong, or with nothing."""


class _Freeze:
    """Of one sandbox."""

    def __init__(self, folder: Path, until: float) -> None:
        self.folder = folder
        self.until = until
        self.limit = time.monotonic() + _PATIENCE
        self.began = False
        self.held = False
        self.stopping: Stopping | None = None
        """Where signals do it."""
        self.waiting: list[Told] = []

    def answer(self, error: str) -> None:
        waiting, self.waiting = self.waiting, []
        for told in waiting:
            told(error)


class Freezing:
    """All that are held, or about to be. Nothing here waits: `tick` is to be called again."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._cgroups = cgroups
        self._freezes: dict[str, _Freeze] = {}

    @property
    def method(self) -> str:
        """`cgroup_v2`, `cgroup_v1`, or SIGNALS."""
        return self._cgroups.freezes or SIGNALS

    def freeze(self, uid: str, folder: Path, seconds: float, told: Told) -> None:
        """Hold it for so long from now; `told` is called when it is still."""
        until = time.monotonic() + seconds
        found = self._freezes.setdefault(uid, _Freeze(folder, until))
        found.until = max(found.until, until)
        found.waiting.append(told)
        if found.held:
            found.answer("")

    def thaw(self, uid: str, folder: Path) -> bool:
        """Let it go on, whoever has stopped it; false where nobody had. Raises OSError."""
        stopped = go_on(folder / "stopped")
        frozen = self._cgroups.freeze(uid, on=False)
        found = self._freezes.pop(uid, None)
        if found:
            found.answer("it was thawed before all of it was still")
        return bool(found and found.began) or stopped or frozen

    def patience(self) -> float | None:
        """Seconds until `tick` is to be called; None when nothing is held."""
        if not all(each.held for each in self._freezes.values()):
            return _LOOK
        ends = [each.until for each in self._freezes.values()]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def tick(self, agents: dict[str, int]) -> None:
        """Go on with those that are not still yet, and thaw those whose time is over.

        `agents` has the pids of those that run; 0 is one whose start is not over.
        """
        now = time.monotonic()
        for uid, each in list(self._freezes.items()):
            agent = agents.get(uid)
            if agent is None:
                del self._freezes[uid]
                each.answer("it has ended")
            elif now > each.until or (not each.held and now > each.limit):
                each.answer("its processes do not hold still: one waits for a disk, or a start")
                self._thaw(uid, each)
            elif agent and not each.held:
                self._go_on(uid, agent, each)

    def _go_on(self, uid: str, agent: int, each: _Freeze) -> None:
        try:
            each.held = self._held(uid, agent, each)
        except OSError as error:
            each.answer(f"cannot freeze: {error}")
            self._thaw(uid, each)
        else:
            if each.held:
                each.answer("")

    def _thaw(self, uid: str, each: _Freeze) -> None:
        """Its time is over; what fails is tried again a little later."""
        each.held, each.until = True, time.monotonic() + REST
        with suppress(OSError):
            self.thaw(uid, each.folder)

    def _held(self, uid: str, agent: int, each: _Freeze) -> bool:
        if self._cgroups.freezes:
            if not each.began:
                each.began = self._cgroups.freeze(uid, on=True)
            return self._cgroups.frozen(uid)
        each.began = True
        each.stopping = each.stopping or Stopping(agent, each.folder / "stopped")
        return each.stopping.look()
