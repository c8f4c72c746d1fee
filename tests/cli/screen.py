"""What comes to a terminal that nobody sits at."""

import asyncio
import os
from collections.abc import Callable


class Screen:
    """What comes to a terminal. It is read all the while: who writes to one that nobody reads
    waits, and so do those who wait for its end."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._shown = b""
        self._changed = asyncio.Event()
        self._ended = False
        os.set_blocking(terminal, False)
        asyncio.get_running_loop().add_reader(terminal, self._read)

    async def sees(self, text: bytes) -> None:
        """Return when this was shown."""
        await self._until(lambda: text in self._shown)

    async def all(self) -> bytes:
        """What was shown, when nobody has the terminal any more."""
        await self._until(lambda: self._ended)
        return self._shown

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._terminal)
        os.close(self._terminal)

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def _read(self) -> None:
        try:
            self._shown += os.read(self._terminal, 1 << 16)
        except OSError:
            self._ended = True
            asyncio.get_running_loop().remove_reader(self._terminal)
        self._changed.set()
