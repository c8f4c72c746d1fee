"""Ends sandboxes: those in which nothing runs, or whatever runs in them."""

import asyncio
import time
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from typing import Final

from agent.channel import PeerGone, PeerTooOld
from agent.client import AgentClient, AgentError
from agent.protocol import State
from services.provider.drivers.making import Sandboxes

_LEAVING: Final = 5.0
"""Seconds in which an agent that leaves is gone."""
_LOOKS: Final = 200
_LOOK: Final = 0.01
_SETTLED: Final = 10.0
"""Seconds for which a new sandbox is not ended for another: a command is on its way to it."""
_GRACE: Final = timedelta(seconds=5)
"""What a command that is told to end has to do so."""
_WHO: Final = "suspend"
"""Who cancels the commands of what is stopped by force."""


async def ended(launcher: Sandboxes, uid: str, owner: int) -> bool:
    """Have its agent end, if nothing runs; true when nothing of it is left."""
    status = await launcher.inspect(uid)
    if status.state is State.ABSENT:
        return True
    try:
        async with AgentClient.connect(Path(status.socket), owner) as agent:
            return await agent.leave() and await _gone(launcher, uid, agent)
    except (PeerGone, PeerTooOld, AgentError, TimeoutError):
        return False


async def end(
    launcher: Sandboxes, uid: str, owner: int, quiet: timedelta
) -> tuple[bool, timedelta]:
    """As `ended`, if nothing has run for `quiet`; else for how long that is so."""
    status = await launcher.inspect(uid)
    if status.state is State.ABSENT:
        return True, quiet
    try:
        async with AgentClient.connect(Path(status.socket), owner) as agent:
            leaves, since = await agent.leave_if_quiet(quiet)
            return leaves and await _gone(launcher, uid, agent), since
    except (PeerGone, PeerTooOld, AgentError, TimeoutError):
        # It may just be ending of itself; then the next one finds nothing.
        return (await launcher.inspect(uid)).state is State.ABSENT, timedelta(0)


async def end_one(launcher: Sandboxes, owner: int, uids: Collection[str]) -> bool:
    """End the oldest of these in which nothing runs; one that was just started is left alone."""
    found = [each for each in await launcher.list() if each.uid in uids]
    for each in sorted(found, key=lambda status: status.started):
        if time.time() - each.started > _SETTLED and await ended(launcher, each.uid, owner):
            return True
    return False


async def kill(launcher: Sandboxes, uid: str, owner: int) -> None:
    """End what runs in it, commands first, so that their exits say why; then the rest."""
    status = await launcher.inspect(uid)
    if status.state is State.ABSENT:
        return
    try:
        async with AgentClient.connect(Path(status.socket), owner) as agent:
            found = (await agent.listing()).executions
            running = [each.execution_id for each in found if not each.ended]
            cancels = [agent.cancel(each, _WHO, _GRACE) for each in running]
            await asyncio.gather(*cancels, return_exceptions=True)
    except (PeerGone, PeerTooOld, AgentError, TimeoutError):
        pass  # What it cannot be told, it is killed for.
    await launcher.kill(uid)


async def _gone(launcher: Sandboxes, uid: str, agent: AgentClient) -> bool:
    await asyncio.wait_for(agent.gone.wait(), _LEAVING)
    for _ in range(_LOOKS):
        if (await launcher.inspect(uid)).state is State.ABSENT:
            return True
        await asyncio.sleep(_LOOK)
    return False
