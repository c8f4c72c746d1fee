"""Whether this gateway is ready: not while a tool that it needs leaves its questions unanswered.

Without the registry it can do nothing; without the tool of one of its services, nothing of that
service. A tool that restarts is no reason: calls wait for that. So it takes some questions in a
row that nobody answers, and one answer to be ready again.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from gateway.tools import Tools
from servicekit.health import NOT_SERVING, SERVING, Health

_EVERY: Final = 1.0
"""Seconds between two questions to a tool."""
_MISSED: Final = 5
"""So many in a row without an answer, and it counts as away."""
_SERVICE: Final = "cove.gateway.v1."
_ALL: Final = "registry"
_NEEDS: Final[Mapping[str, str]] = {
    "SourceService": "git",
    "ExecutionService": "executor",
    "FileService": "executor",
}
"""What a service needs beside the registry."""


class Readiness:
    def __init__(self, asks: Mapping[str, Callable[[], Awaitable[bool]]]) -> None:
        self._asks = asks
        self._missed = dict.fromkeys(asks, _MISSED)  # None has answered yet.

    def there(self, tool: str) -> bool:
        """Whether it answered lately."""
        return self._missed[tool] < _MISSED

    def told(self) -> Mapping[str, bool]:
        """Of each tool, whether it answered lately."""
        return {tool: self.there(tool) for tool in self._asks}

    async def look(self, tool: str) -> None:
        """Ask one of them once."""
        fine = await self._asks[tool]()
        self._missed[tool] = 0 if fine else self._missed[tool] + 1

    def tell(self, health: Health, services: Mapping[str, object]) -> None:
        for service in ("", *services):
            needed = _NEEDS.get(service.removeprefix(_SERVICE), _ALL)
            ready = self.there(_ALL) and self.there(needed)
            health.set(service, SERVING if ready else NOT_SERVING)

    async def run(self, health: Health, services: Mapping[str, object]) -> None:
        """For ever. What one has to say does not wait for what another leaves unanswered."""
        await asyncio.gather(*(self._follow(tool, health, services) for tool in self._asks))

    async def _follow(self, tool: str, health: Health, services: Mapping[str, object]) -> None:
        while True:
            await self.look(tool)
            self.tell(health, services)
            await asyncio.sleep(_EVERY)


@asynccontextmanager
async def telling(
    readiness: Readiness, health: Health, services: Mapping[str, object]
) -> AsyncIterator[None]:
    """Keep `health` up to date while the block runs."""
    task = asyncio.create_task(readiness.run(health, services))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def readiness(tools: Tools) -> Readiness:
    """Asks the tools of this gateway; of several nodes one that answers will do."""
    if tools.nodes.several:
        node = partial(_any, tools)
        return Readiness({"registry": tools.registry.answers, "git": node, "executor": node})
    return Readiness(
        {
            "registry": tools.registry.answers,
            "git": tools.git.answers,
            "provider": tools.provider.answers,
            "executor": tools.executor.answers,
        }
    )


async def _any(tools: Tools) -> bool:
    return bool(tools.nodes.answering())
