"""What drivers can, as they told lately: who asks is answered at once, whatever a driver waits for.

Gateways ask each second whether a node is there. One engine, or proxy, that hangs must not make
all of it seem gone.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final

from servicekit import calls
from services.provider.capabilities import Capabilities, Isolation, Method
from services.provider.driver import Driver

_PATIENCE: Final = 0.5
"""Seconds that a driver has. What it tells later is for who asks then."""
_FIRST: Final = 25.0
"""The same for those who have never told, counted from when the first was asked: what they stand on
may have to be loaded, or started."""
_FRESH: Final = 15.0
"""Seconds for which what it told is gone by meanwhile."""
_REMEDY: Final = "what it stands on does not answer: see whether that is well, or start it again"


class Asking:
    """Asks drivers, each once at a time."""

    def __init__(self, drivers: Mapping[str, Driver], default: str) -> None:
        self._drivers = drivers
        self._default = default
        self._begun = 0.0
        self._told: dict[str, tuple[float, Capabilities]] = {}
        self._asking: dict[str, asyncio.Task[Capabilities]] = {}

    async def capabilities(self) -> dict[str, Capabilities]:
        """Of each driver, by name. One that does not answer has a remedy.

        The default one is waited for until it has told once. Raises what it raises.
        """
        asked = {name: self._ask(name) for name in sorted(self._drivers)}
        self._begun = self._begun or time.monotonic()
        if self._default not in self._told:
            await asyncio.shield(asked[self._default])
        untold = [task for name, task in asked.items() if name not in self._told]
        if untold and (left := self._begun + _FIRST - time.monotonic()) > 0:
            await asyncio.wait(untold, timeout=left)
        await asyncio.wait(asked.values(), timeout=_PATIENCE)
        return {name: self._found(name, task) for name, task in asked.items()}

    def _ask(self, name: str) -> "asyncio.Task[Capabilities]":
        if (task := self._asking.get(name)) is None:
            with calls.detached():
                task = asyncio.create_task(self._hear(name))
            self._asking[name] = task
            task.add_done_callback(lambda done: self._ended(name, done))
        return task

    async def _hear(self, name: str) -> Capabilities:
        told = await self._drivers[name].capabilities()
        self._told[name] = time.monotonic(), told
        return told

    def _ended(self, name: str, task: "asyncio.Task[Capabilities]") -> None:
        del self._asking[name]
        if not task.cancelled():
            task.exception()  # Whoever waited may be gone: that is no error.

    def _found(self, name: str, task: "asyncio.Task[Capabilities]") -> Capabilities:
        if task.done():
            return task.result()
        when, known = self._told.get(name, (0.0, None))
        if known is None:
            return Capabilities(
                driver=name,
                node=self._told[self._default][1].node,
                isolation=Isolation.NONE,
                memory=Method.NONE,
                processes=Method.NONE,
                cpu=Method.NONE,
                idle_timeout=timedelta(0),
                mounts=self._drivers[name].mounts,
                remedy=_REMEDY,
            )
        if time.monotonic() < when + _FRESH:
            return known
        return replace(known, isolation=Isolation.NONE, remedy=_REMEDY)
