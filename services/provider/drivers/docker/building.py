"""Runs a setup in a container of its own, which nothing else ever runs in."""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from servicekit.errors import Unavailable
from services.provider.drivers.docker import shape
from services.provider.drivers.docker.door import Door
from services.provider.drivers.docker.engine import Engine, EngineError
from services.provider.drivers.making import BUILD
from services.provider.drivers.ways_out import WaysOut
from services.provider.errors import BuildFailed

_ROOT: Final = 0
_TAIL: Final = 1000
_REMEDY: Final = "Mend the setup; this is what it wrote last."


class Builder:
    """At one engine. Doors are opened in `doors`."""

    def __init__(self, engine: Engine, doors: Path, ways_out: WaysOut) -> None:
        self._engine = engine
        self._doors = doors
        self._ways_out = ways_out

    @asynccontextmanager
    async def became(
        self, name: str, wanted: shape.Building, made: shape.Made, labels: Mapping[str, str]
    ) -> AsyncIterator[str]:
        """The identity of a container of that name in which the setup has ended well.

        It is gone after the block, however that ends. Raises BuildFailed, Unavailable.
        """
        door = self._doors / name[:40]
        await self._engine.remove(name)  # What an earlier provider did not live to end.
        try:
            with Door.at(door, _ROOT) as opened:
                config = shape.setup_config(wanted, made, labels, door)
                container = await self._engine.create(name, config)
                await self._engine.start(container)
                await self._end(container, self._run(container, opened, wanted))
            yield container
        finally:
            await asyncio.shield(self._engine.remove(name))

    async def _end(self, container: str, running: Coroutine[Any, Any, int]) -> None:
        """Wait for it. Raises BuildFailed unless it ends well, and in time."""
        try:
            code = await asyncio.wait_for(running, BUILD)
        except TimeoutError:
            raise await self._failed(container, f"the setup took more than {BUILD:g} s") from None
        except (EngineError, OSError) as error:
            raise await self._failed(container, f"the setup did not begin: {error}") from error
        if code:
            raise await self._failed(container, f"a command of the setup ended with {code}")

    async def _run(self, container: str, door: Door, wanted: shape.Building) -> int:
        """Let it begin, when what it may reach is in force; its code. Raises OSError."""
        ended = asyncio.create_task(self._engine.ended(container))
        begun = asyncio.create_task(self._begun(container, door, wanted))
        try:
            await asyncio.wait((ended, begun), return_when=asyncio.FIRST_COMPLETED)
            if begun.done():
                begun.result()
            return await ended
        finally:
            ended.cancel()
            begun.cancel()
            await asyncio.gather(ended, begun, return_exceptions=True)

    async def _begun(self, container: str, door: Door, wanted: shape.Building) -> None:
        async with door.taken() as listener:
            if not wanted.network.rules:
                return
            found = await self._engine.inspect(container)
            if listener is None or not (found and found.pid):
                raise OSError("it has no way out")
            pidfd = os.pidfd_open(found.pid)
            try:
                # The name tells those of builds from those of environments.
                name = f"setup-{container[:16]}"
                await self._ways_out.open(name, wanted.network, found.pid, (listener, pidfd))
            finally:
                os.close(pidfd)

    async def _failed(self, container: str, message: str) -> BuildFailed:
        try:
            said = await self._engine.last_words(container)
        except (EngineError, Unavailable):
            said = ""
        return BuildFailed(message, remedy=_REMEDY, cause=said[-_TAIL:])
