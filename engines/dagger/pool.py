"""The engines of this node, each by its name, and the sessions to them."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

import dagger

from engines.dagger.connection import telling
from engines.dagger.errors import EngineLost, HandleInvalid
from engines.dagger.session import Session
from engines.dagger.settings import Settings

_AWAY: Final = 15.0
"""Seconds for which an engine without an answer is not asked by who can do with another."""


class Engine:
    """One engine. Sessions are made when they are needed, and replaced when they are old or lost.

    A session pins whatever it was ever given, so none lasts for ever; and what an environment
    stands on is kept by the engine without one.
    """

    def __init__(self, name: str, address: str, settings: Settings, env: Mapping[str, str]) -> None:
        self.name = name
        self._address = address
        self._settings = settings
        self._env = env
        self._sessions: list[Session] = []
        self._starting = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self._away_until = 0.0

    async def answers(self) -> bool:
        """Whether it does now. One that has just not answered is not asked again for a while."""
        if time.monotonic() < self._away_until:
            return False
        with suppress(EngineLost):
            await self.version()
            return True
        return False

    async def version(self) -> str:
        """As it tells now. Raises EngineUnavailable, EngineLost, which is one that says nothing."""
        async with self.client() as client:
            try:
                async with asyncio.timeout(self._settings.start):
                    return await client.version()
            except TimeoutError:
                raise EngineLost(f"the engine {self.name} does not answer") from None

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """One for some calls, shared. Raises EngineUnavailable, EngineLost.

        Who finds that it is lost is told so, and the next call has another: nothing is sent twice
        here.
        """
        session = await self._take()
        session.operations += 1
        try:
            with telling():
                yield session
        except EngineLost:
            session.lost.set()
            raise
        finally:
            session.users -= 1
            self._retire()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[dagger.Client]:
        """As `session`, its API."""
        async with self.session() as session:
            yield session.client

    async def close(self) -> None:
        """End all sessions."""
        for session in self._sessions:
            session.lost.set()
            self._end(session)
        self._sessions.clear()
        if self._closing:
            await asyncio.wait(self._closing)

    async def _take(self) -> Session:
        """The least used, and counted as used; a new one where all have enough to do."""
        if found := self._free():
            found.users += 1
            return found
        async with self._starting:
            found = self._free()
            if found is None:
                found = await self._opened()
                self._sessions.append(found)
            found.users += 1
            return found

    async def _opened(self) -> Session:
        try:
            return await Session.open(self._settings, self._address, self._env)
        except EngineLost:
            self._away_until = time.monotonic() + _AWAY
            raise

    def _free(self) -> Session | None:
        young = [each for each in self._sessions if not self._old(each)]
        found = min(young, key=lambda each: each.users, default=None)
        if found and found.users >= self._settings.calls and len(young) < self._settings.sessions:
            return None
        return found

    def _old(self, session: Session) -> bool:
        return (
            session.lost.is_set()
            or session.operations >= self._settings.operations
            or time.monotonic() - session.born >= self._settings.age
        )

    def _retire(self) -> None:
        """End those that are old and that nobody uses."""
        for session in [each for each in self._sessions if self._old(each) and not each.users]:
            self._sessions.remove(session)
            self._end(session)

    def _end(self, session: Session) -> None:
        task = asyncio.create_task(session.close(kill=session.lost.is_set()))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class Engines:
    """By name. The one an environment is on is pinned in its handle."""

    def __init__(self, settings: Settings, env: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._known = {
            name: Engine(name, address, settings, env) for name, address in settings.engines.items()
        }

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._known)

    def named(self, name: str) -> Engine:
        """Raises HandleInvalid: this node has no such engine, or not any more."""
        if name not in self._known:
            raise HandleInvalid(f"this node has no engine named {name}")
        return self._known[name]

    def default(self) -> Engine:
        """The first. Raises EngineUnavailable."""
        self._settings.usable()
        return next(iter(self._known.values()))

    async def answering(self) -> Engine:
        """The first that answers, or the first where none does. Raises EngineUnavailable."""
        first = self.default()
        if len(self._known) == 1:
            return first
        return await self.other() or first

    async def other(self, than: str = "") -> Engine | None:
        """The first that answers, of all but one. Raises EngineUnavailable."""
        for name, each in self._known.items():
            if name != than and await each.answers():
                return each
        return None

    async def version(self) -> str:
        """Of the first engine. Raises EngineUnavailable, EngineLost."""
        return await self.default().version()

    async def close(self) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*(each.close() for each in self._known.values()))
