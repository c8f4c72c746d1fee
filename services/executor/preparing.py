"""Prepares starts ahead, for environments that are in use.

A prepared start is a directory for its record, its control groups, and a process of the agent's
that has joined them and waits. So what is slow, above all the joining, is done before a caller
waits. It serves one execution, which gets its token; it never is one. It lasts as long as the
connection to the agent, which ends a few seconds after the last use; what a killed executor
leaves of it is swept as any half made record and any empty control group.
"""

import asyncio
import os
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.client import AgentClient, AgentError, PeerGone, PeerTooOld, Sinks
from services.executor.agents import Agents
from services.executor.background import Background
from services.executor.groups import Groups
from services.executor.store import Draft, Store

_MOST: Final = 3
"""Prepared starts of one environment: some are there while others are being made."""
_ENDING: Final = 0.2
"""Seconds in which an agent has ended what nobody is connected for any more."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """One start that only lacks its command."""

    draft: Draft
    groups: tuple[str, ...]


class _Stock:
    """What is prepared over one connection."""

    def __init__(self, client: AgentClient) -> None:
        self.client = client
        self.ready: deque[Prepared] = deque()
        self.making = 0


class Preparer:
    """Keeps prepared starts for environments whose agent is connected."""

    def __init__(
        self, *, store: Store, agents: Agents, groups: Groups, background: Background
    ) -> None:
        self._store = store
        self._agents = agents
        self._groups = groups
        self._background = background
        self._stocks: dict[str, _Stock] = {}

    def take(self, uid: str, client: AgentClient) -> Prepared | None:
        """A start that was prepared over this connection, if there is one."""
        stock = self._stocks.get(uid)
        if stock is None or stock.client is not client or not stock.ready:
            return None
        return stock.ready.popleft()

    def give_back(self, uid: str, client: AgentClient, prepared: Prepared) -> None:
        """It was not used after all."""
        stock = self._stocks.get(uid)
        if stock and stock.client is client:
            stock.ready.appendleft(prepared)
        else:
            self.discard(prepared)

    def prepare(self, uid: str) -> None:
        """See to it that the next start of this environment finds one. Returns at once."""
        stock = self._stocks.get(uid)
        if stock is None or len(stock.ready) + stock.making < _MOST:
            self._background.keep(self._fill(uid))

    async def _fill(self, uid: str) -> None:
        try:
            async with self._agents.link(uid) as client:
                stock = self._stock(uid, client)
                lacking = _MOST - len(stock.ready) - stock.making
                # All at once: joining groups right after another is what costs nothing.
                await asyncio.gather(*(self._add(uid, stock) for _ in range(lacking)))
        except (PeerGone, PeerTooOld):
            return

    async def _add(self, uid: str, stock: _Stock) -> None:
        stock.making += 1
        try:
            prepared = await self._prepared(uid, stock.client)
        except (AgentError, PeerGone, OSError):
            return  # Starts do without.
        finally:
            stock.making -= 1
        stock.ready.append(prepared)

    def _stock(self, uid: str, client: AgentClient) -> _Stock:
        stock = self._stocks.get(uid)
        if stock is None or stock.client is not client:
            stock = self._stocks[uid] = _Stock(client)
            self._background.keep(self._tend(uid, stock))
        return stock

    async def _tend(self, uid: str, stock: _Stock) -> None:
        """Remove what is prepared when its connection ends."""
        try:
            await stock.client.gone.wait()
            if self._stocks.get(uid) is stock:
                del self._stocks[uid]
            await asyncio.sleep(_ENDING)
        finally:
            while stock.ready:
                self.discard(stock.ready.popleft())

    async def _prepared(self, uid: str, client: AgentClient) -> Prepared:
        with ExitStack() as stack:
            making = asyncio.ensure_future(asyncio.to_thread(self._make, stack, uid, client.pid))
            try:
                prepared, sinks = await asyncio.shield(making)
                await client.prepare(prepared.draft.token, sinks)
            except BaseException:
                await asyncio.wait((making,))
                if not making.exception():
                    self.discard(making.result()[0])
                raise
            if client.gone.is_set():
                self.discard(prepared)
                raise PeerGone("connection ended")
            return prepared

    def _make(self, stack: ExitStack, uid: str, agent_pid: int) -> tuple[Prepared, Sinks]:
        draft = self._store.draft(uid)
        groups = tuple(self._groups.paths(agent_pid, draft.token))
        prepared = Prepared(draft, groups)
        try:
            joins = stack.enter_context(self._groups.joining(groups))
            log, result = opened(stack, draft.folder)
        except OSError:
            self.discard(prepared)
            raise
        sinks = Sinks(log=log, result=result, cgroup_procs=joins.procs, unified=joins.unified)
        return prepared, sinks

    def discard(self, prepared: Prepared) -> None:
        """Remove what nobody will use."""
        self._store.discard(prepared.draft)
        self._groups.remove(prepared.groups)


def opened(stack: ExitStack, folder: Path) -> tuple[int, int]:
    """Log and result of an execution, as the agent is given them."""
    log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    stack.callback(os.close, log)
    result = os.open(folder / "result", os.O_WRONLY | os.O_CLOEXEC)
    stack.callback(os.close, result)
    return log, result
