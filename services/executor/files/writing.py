"""Writes a file whole: beside its place first, then at once into it."""

import asyncio
import errno
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from agent import drafts
from agent.client import AgentClient, AgentError
from servicekit.aside import aside
from services.executor.agents import Agents
from services.executor.background import Background
from services.executor.errors import (
    AgentUnavailable,
    EnvironmentDormant,
    FileChanged,
    FileExists,
    FileNotFound,
    WrongFileType,
)
from services.executor.files.drafts import Drafts, Note
from services.executor.files.files import (
    Found,
    compare,
    look,
    missing,
    parent,
    relative,
    shown,
    telling,
)
from services.executor.files.places import Places

T = TypeVar("T")

_MOST_LINKS: Final = 40
_MODE: Final = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be written where, and under which conditions."""

    uid: str
    path: bytes
    mode: int = 0
    """Permission bits of a new file; 0 is 0644."""
    etag: str = ""
    must_not_exist: bool = False
    make_parents: bool = False


class Draft:
    """Content that has no name yet. Made by `Writer`."""

    def __init__(
        self, writer: "Writer", wish: Wish, place: bytes, beside: bytes, descriptor: int, note: Note
    ) -> None:
        self._writer = writer
        self.descriptor = descriptor
        self.size = 0
        """Bytes written so far."""
        self.work: asyncio.Task[object] | None = None
        """What still needs the draft, though its caller may have left."""
        self._hash = hashlib.sha256()
        self.wish = wish
        self.place = place
        """Where it is to be: the path, with symbolic links at its end resolved."""
        self.beside = beside
        """Where it is until then."""
        self.note = note

    @property
    def digest(self) -> str:
        """Of the content so far."""
        return self._hash.hexdigest()

    async def write(self, data: bytes) -> None:
        """Append content. Raises NoSpace."""
        self._hash.update(data)
        self.size += len(data)
        with telling(self.wish.path):
            rest = memoryview(data)
            while rest:
                rest = rest[await aside(os.write, self.descriptor, rest) :]

    async def commit(self) -> Found:
        """Give it its name. Raises FileChanged, FileExists, WrongFileType."""
        return await self._writer.commit(self)

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what commits to its end, also when the caller leaves; the draft is there so long."""
        task = self._writer.begin(work)
        self.work = task
        return await asyncio.shield(task)


class Writer:
    """Writes files of this node's environments."""

    def __init__(
        self, agents: Agents, places: Places, drafts: Drafts, background: Background
    ) -> None:
        self._agents = agents
        self._places = places
        self._drafts = drafts
        self._background = background
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def writing(self, wish: Wish) -> AsyncIterator[Draft]:
        """A draft; what is not committed when the block ends is gone."""
        opening = self._background.begin(self._open(wish))
        try:
            yield await asyncio.shield(opening)
        finally:
            await self._background.finish(self._clean(opening))

    async def _open(self, wish: Wish) -> Draft:
        with telling(wish.path):
            async with self._agents.awake(wish.uid) as agent:
                place, there = await place_of(agent, self._places, wish.uid, wish.path)
                _allow(wish, there)
                folder = parent(place)
                if wish.make_parents and folder:
                    await agent.make_directory(folder, parents=True)
                beside = join(folder, drafts.new())
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                note = self._drafts.note(wish.uid, beside)
                try:
                    with missing(wish.path, made=wish.make_parents):
                        descriptor = await agent.open(beside, flags, 0o600, follow=False)
                except BaseException:
                    self._drafts.forget(note)
                    raise
        try:
            self._places.check(wish.uid, descriptor, stat.S_IFREG, os.O_WRONLY)
        except BaseException:
            os.close(descriptor)
            self._drafts.forget(note)
            raise
        return Draft(self, wish, place, beside, descriptor, note)

    def begin(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Start what goes on when its caller leaves."""
        return self._background.begin(work)

    async def commit(self, draft: Draft) -> Found:
        """Give a draft its name."""
        wish = draft.wish
        lock = self._locks.setdefault(wish.uid, asyncio.Lock())
        with telling(wish.path):
            async with lock, self._agents.awake(wish.uid) as agent:
                there = await _find(agent, self._places, wish.uid, draft.place)
                _allow(wish, there)
                mode = stat.S_IMODE(there.stat.st_mode) & 0o777 if there else wish.mode or _MODE
                os.fchmod(draft.descriptor, mode)
                replace = not wish.must_not_exist
                await agent.rename(draft.beside, draft.place, replace=replace)
                return Found(path=relative(wish.path), stat=os.fstat(draft.descriptor))

    async def _clean(self, opening: "asyncio.Task[Draft]") -> None:
        """Remove the draft, unless it has its name now; the caller may have left at any time."""
        await asyncio.wait((opening,))
        if opening.cancelled() or opening.exception():
            return
        draft = opening.result()
        if draft.work:
            await asyncio.wait((draft.work,))
        os.close(draft.descriptor)
        gone = False
        with suppress(AgentUnavailable, EnvironmentDormant):
            async with self._agents.awake(draft.wish.uid) as agent:
                with suppress(AgentError):  # It has its name.
                    await agent.remove(draft.beside)
                gone = True
        self._drafts.forget(draft.note, gone=gone)


async def place_of(
    agent: AgentClient, places: Places, uid: str, path: bytes
) -> tuple[bytes, Found | None]:
    """Where a write goes: through symbolic links, each resolved inside. And what is there."""
    place = path
    for _ in range(_MOST_LINKS):
        there = await _find(agent, places, uid, place)
        if there is None or not there.target:
            return place, there
        place = join(parent(place), there.target)
    raise FileNotFound("too many symbolic links", path=shown(path))


async def _find(agent: AgentClient, places: Places, uid: str, path: bytes) -> Found | None:
    try:
        return await look(agent, places, uid, path)
    except AgentError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def join(folder: bytes, name: bytes) -> bytes:
    """A path, unless `name` is one already."""
    return folder + b"/" + name if folder and not name.startswith(b"/") else name


def _allow(wish: Wish, there: Found | None) -> None:
    """Raises what forbids the write, as far as is known now."""
    path = shown(wish.path)
    if there is None:
        if wish.etag:
            raise FileChanged("the file is gone", path=path)
        return
    if wish.must_not_exist:
        raise FileExists("something is there", path=path)
    if not stat.S_ISREG(there.stat.st_mode):
        raise WrongFileType("not a regular file", path=path)
    if wish.etag:
        compare(there, wish.etag)
