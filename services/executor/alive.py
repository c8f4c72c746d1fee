"""What is alive of executions, as agents tell. Nobody is woken, or waited for long, for it."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from agent.client import AgentError, PeerGone, PeerTooOld, Processes
from services.executor.agents import Agents, absent
from services.executor.executions import Snapshot
from services.executor.record import State

_PATIENCE: Final = 3.0
_FEW: Final = 10
"""Executions that are asked for by name; of more the agent is asked for all."""
_REMEMBERED: Final = 10_000
_NONE: Final = Processes(0, ())


class Alive:
    """Asks agents. Where nothing is left it is not asked again: that would keep it awake."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents
        self._over: OrderedDict[str, None] = OrderedDict()

    async def of(self, uid: str, found: Sequence[Snapshot]) -> Mapping[str, Processes]:
        """By key of the execution; without those of which it is not known."""
        keys = [each.record.key for each in found]
        unsure = [key for key in keys if key not in self._over]
        told = await self._ask(uid, unsure) if unsure else {}
        if told is None:
            return {key: _NONE for key in keys if key in self._over}
        for each in found:
            if each.progress.state is State.ENDED and each.record.key not in told:
                self._over[each.record.key] = None
        while len(self._over) > _REMEMBERED:
            self._over.popitem(last=False)
        return {key: told.get(key, _NONE) for key in keys}

    async def _ask(self, uid: str, keys: Sequence[str]) -> Mapping[str, Processes] | None:
        """None when it cannot be known."""
        if not self._agents.active(uid):
            return {}
        try:
            async with asyncio.timeout(_PATIENCE), self._agents.link(uid) as agent:
                return await agent.processes(*(keys if len(keys) <= _FEW else ()))
        except PeerGone as error:
            return {} if absent(error) else None
        except (AgentError, PeerTooOld, TimeoutError):
            return None
