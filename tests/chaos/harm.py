"""What happens to the suite: chosen by a seed, one after the other."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from tests.chaos.standing import Standing
from tests.support.suite import SERVICES

REST: Final = 0.2, 1.8
"""Seconds between two."""
RESULTS: Final = 0, 2, 4, 8
"""That clients are told between two: a busy machine gets no further by being hit more often."""
FEWEST: Final = 6
"""Harms in a storm, however busy the machine is."""
_LOOK: Final = 0.05
FULL: Final = 0.5, 2.5
STOPPED: Final = 0.5, 4.0
AWAY: Final = 0.0, 2.0


class Harm:
    """Kills, cuts, stops and fills until its time is over. `told` counts the clients' results."""

    def __init__(self, standing: Standing, seed: str, told: Callable[[], int]) -> None:
        self._standing = standing
        self._told = told
        self._dice = random.Random(seed)
        self.done: Counter[str] = Counter()
        self._kinds: dict[str, tuple[float, Callable[[], Awaitable[None]]]] = {
            "service": (6, self._service),
            "services": (0.7, self._services),
            "launcher": (0.7, self._launcher),
            "egress": (0.4, self._egress),
            "agent": (1.5, self._agent),
            "wire": (1.5, standing.wire.cut),
            "stop": (1, self._stop),
            "up": (0.4, standing.kill_all_of_it),
        }
        if standing.may_fill:
            self._kinds["disk"] = (0.6, self._disk)
        if standing.database:
            self._kinds["database"] = (1.5, self._database)

    async def go_on(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            weights = [weight for weight, _ in self._kinds.values()]
            (name,) = self._dice.choices(list(self._kinds), weights=weights)
            await self._kinds[name][1]()
            self._note(name)
            wanted = self._told() + self._dice.choice(RESULTS)
            until = min(end, time.monotonic() + seconds / FEWEST)
            await asyncio.sleep(self._dice.uniform(*REST))
            while self._told() < wanted and time.monotonic() < until:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK)

    async def _service(self) -> None:
        name = self._dice.choice(SERVICES)
        self._kill(self._standing.suite.pid(name), name)

    async def _services(self) -> None:
        for name in self._dice.sample(SERVICES, self._dice.randint(2, len(SERVICES))):
            self._kill(self._standing.suite.pid(name), name)

    async def _launcher(self) -> None:
        self._kill(self._standing.suite.launcher_pid(), "launcher")

    async def _egress(self) -> None:
        self._kill(self._standing.suite.proxy_pid(), "egress")

    async def _agent(self) -> None:
        if agents := await self._standing.agents():
            self._kill(self._dice.choice(agents), "agent")

    async def _stop(self) -> None:
        """One stands still for a while, as under load, and does not know of it."""
        name = self._dice.choice(SERVICES)
        pid = self._standing.suite.pid(name)
        if not pid:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(self._dice.uniform(*STOPPED))
            finally:
                os.kill(pid, signal.SIGCONT)

    async def _disk(self) -> None:
        await asyncio.to_thread(self._standing.fill)
        try:
            await asyncio.sleep(self._dice.uniform(*FULL))
        finally:
            self._standing.empty()

    async def _database(self) -> None:
        """All of PostgreSQL at once, which stays away for a while."""
        database = self._standing.database
        assert database
        await asyncio.to_thread(database.stop, signal.SIGKILL)
        try:
            await asyncio.sleep(self._dice.uniform(*AWAY))
        finally:
            await asyncio.to_thread(database.start)

    def _kill(self, pid: int, name: str) -> None:
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.done[name] += 1

    def _note(self, name: str) -> None:
        if name in ("wire", "stop", "up", "disk", "database"):
            self.done[name] += 1
