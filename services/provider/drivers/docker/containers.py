"""The containers of a node: what the launcher's sandboxes are for the driver `local`.

Everything about one is found by its labels, and its name; nothing is kept here.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from agent import overlay, stack
from agent.launcher.start import open_lock
from agent.protocol import Facts, Overlay, SandboxSpec, SandboxStatus, State
from services.provider.drivers.docker import groups, shape
from services.provider.drivers.docker.door import Door
from services.provider.drivers.docker.engine import Container, Engine, EngineAway, EngineError
from services.provider.drivers.docker.labels import Labels, Owner

_LOCK_PATIENCE: Final = 5.0
"""Seconds in which git must be done with what it does to the layers."""
_ENTRY_PATIENCE: Final = 30.0
"""Seconds in which a container that was started must have come to its door."""
_LOOK: Final = 0.01
_PLAIN: Final = frozenset(",:\\")
"""What must not be in a path, as the options of a mount are words with these between them."""


class StartFailed(Exception):
    """A container did not start; the message says why."""


class NotOurs(Exception):
    """A container has the name of one of ours, and is of another state directory, or version."""


class Containers:
    """All that are ours: of this state directory, at one engine."""

    def __init__(self, engine: Engine, runtime: Path, labels: Labels, facts: Facts) -> None:
        self._engine = engine
        self._facts = facts
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._links = runtime / "a"
        """Where executor looks. A link says by the folder that it leads to whose an agent is."""
        self._sockets = runtime / "docker"
        self._doors = runtime / "d"
        self._labels = labels
        self._thaws: dict[str, asyncio.TimerHandle] = {}
        self._thawing: set[asyncio.Task[None]] = set()
        for folder in (self._links, self._sockets, self._doors):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def facts(self) -> Facts:
        """As the engine was found to be last, or what engines are mostly."""
        return self._facts

    def suppose(self, facts: Facts) -> None:
        self._facts = facts

    async def start(self, spec: SandboxSpec, owner: Owner, made: shape.Made) -> SandboxStatus:
        """Start one whose agent then answers, unless it runs.

        Raises StartFailed, and as `inspect`.
        """
        async with self._lock(spec.uid):
            if (found := await self._find(spec.uid)) and found.running:
                return self._status(spec.uid, found)
            try:
                await self._remove(spec.uid)
                await self._start(spec, owner, made)
            except (EngineError, OSError, StartFailed) as error:
                await self._remove(spec.uid)
                raise StartFailed(str(error)) from error
            return await self.inspect(spec.uid)

    async def inspect(self, uid: str) -> SandboxStatus:
        """What is there of `uid`; ABSENT when nothing runs.

        Raises EngineAway, EngineError, NotOurs.
        """
        found = await self._find(uid)
        return self._status(uid, found) if found else SandboxStatus(uid=uid)

    async def list(self) -> tuple[SandboxStatus, ...]:
        """All that run."""
        found = await self._engine.containers(self._labels.ours)
        return tuple(
            self._status(uid, each)
            for each in found
            if each.running and (uid := self._labels.uid(each.labels))
        )

    async def left(self) -> set[str]:
        """Uids of which there is anything at the engine, running or not."""
        found = await self._engine.containers(self._labels.ours)
        names = await self._engine.volumes(self._labels.ours)
        uids = {self._labels.uid(each.labels) for each in found}
        return {uid for uid in (*uids, *map(self._labels.uid_of_name, names)) if uid}

    async def kill(self, uid: str) -> bool:
        """Kill it and remove what it left; true when one ran."""
        async with self._lock(uid):
            found = await self._find(uid)
            await self._remove(uid)
            return bool(found and found.running)

    async def freeze(self, uid: str, seconds: float) -> bool:
        """Hold all its processes still; false when none runs. They go on after `seconds`.

        Or when the next provider is there, if this one dies.
        """
        found = await self._find(uid)
        if not (found and found.running):
            return False
        loop = asyncio.get_running_loop()
        if before := self._thaws.pop(uid, None):
            seconds = max(seconds, before.when() - loop.time())
            before.cancel()
        # First, as what is paused and has none is taken for forgotten.
        self._thaws[uid] = loop.call_later(seconds, self._due, uid, loop)
        if not found.paused:
            await self._engine.pause(found.identity)
        return True

    async def thaw(self, uid: str) -> bool:
        """Let them go on; false when they were not frozen."""
        if timer := self._thaws.pop(uid, None):
            timer.cancel()
        found = await self._find(uid)
        if not (found and found.paused):
            return False
        await self._engine.unpause(found.identity)
        return True

    async def frozen(self, uid: str) -> bool:
        found = await self._find(uid)
        return bool(found and found.paused)

    async def tidy(self, uid: str) -> None:
        """Remove what one that has ended by itself left."""
        async with self._lock(uid):
            found = await self._find(uid)
            if not (found and found.running):
                await self._remove(uid)

    async def thaw_forgotten(self) -> None:
        """Let go on what an earlier provider held still, and did not live to thaw."""
        for each in await self._engine.containers(self._labels.ours):
            uid = self._labels.uid(each.labels)
            if each.paused and uid not in self._thaws:
                await self.thaw(uid)

    def _due(self, uid: str, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(self._thaw_when_due(uid))
        self._thawing.add(task)  # So that it is not collected.
        task.add_done_callback(self._thawing.discard)

    async def _thaw_when_due(self, uid: str) -> None:
        """An engine that is away now, and had it held still, is asked again at the next look."""
        with contextlib.suppress(EngineAway, EngineError, NotOurs):
            await self.thaw(uid)

    async def _find(self, uid: str) -> Container | None:
        found = await self._engine.inspect(self._labels.name(uid))
        if found and self._labels.uid(found.labels) != uid:
            raise NotOurs(uid)
        return found

    def _lock(self, uid: str) -> asyncio.Lock:
        return self._locks.setdefault(uid, asyncio.Lock())

    def _status(self, uid: str, found: Container) -> SandboxStatus:
        if not found.running:
            return SandboxStatus(uid=uid)
        return SandboxStatus(
            uid=uid,
            state=State.RUNNING,
            socket=str(self._sockets / uid),
            pid=found.pid,
            started=found.started,
        )

    async def _start(self, spec: SandboxSpec, owner: Owner, made: shape.Made) -> None:
        labels = self._labels.of(spec.uid, owner)
        with contextlib.ExitStack() as held:
            lock = held.enter_context(_opened(spec.lock))
            if spec.lock:
                await _locked(lock)
            if spec.overlay:
                await self._engine.make_volume(
                    self._labels.name(spec.uid), _volume(spec.overlay), labels
                )
            listener = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            path = self._sockets / spec.uid
            listener.bind(str(path))
            path.chmod(0o600)
            listener.listen(512)
            (self._links / spec.uid).symlink_to(f"../{self._sockets.name}/{spec.uid}")
            with Door.at(self._doors / spec.uid) as door:
                config = shape.config(
                    spec, made, labels, self._labels.name(spec.uid), self._doors / spec.uid
                )
                container = await self._engine.create(self._labels.name(spec.uid), config)
                await self._engine.start(container)
                await self._let_in(container, door, (listener.fileno(), lock))
            if spec.overlay:
                overlay.open_work(spec.overlay.work)

    async def _let_in(self, container: str, door: Door, descriptors: tuple[int, int]) -> None:
        """Raises StartFailed when it ends before, with what it said; or does not come."""
        found = await self._engine.inspect(container)
        if found and found.pid:
            await asyncio.to_thread(groups.settle, found.pid)
        entry = asyncio.ensure_future(door.hand(descriptors))
        ended = asyncio.ensure_future(self._engine.ended(container))
        try:
            await asyncio.wait(
                (entry, ended), timeout=_ENTRY_PATIENCE, return_when=asyncio.FIRST_COMPLETED
            )
            if entry.done():
                return entry.result()
            said = await self._engine.last_words(container)
            raise StartFailed(said or "its program did not start in time")
        finally:
            entry.cancel()
            ended.cancel()
            await asyncio.gather(entry, ended, return_exceptions=True)

    async def _remove(self, uid: str) -> None:
        """Container first: the engine keeps a volume that is in use."""
        found = await self._find(uid)
        if found:
            if found.paused:  # Held still, it would not die everywhere.
                await self._engine.unpause(found.identity)
            await self._engine.remove(found.identity)
        await self._engine.remove_volume(self._labels.name(uid))
        for folder in (self._links, self._sockets, self._doors):
            (folder / uid).unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(lock: str) -> Iterator[int]:
    """The lock of a worktree, or nothing that stands for it. Raises OSError."""
    descriptor = open_lock(lock) if lock else os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def _locked(descriptor: int) -> None:
    """Hold it, shared. Raises OSError when git does not give it up in time."""
    deadline = asyncio.get_running_loop().time() + _LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if asyncio.get_running_loop().time() > deadline:
                raise OSError("git holds the lock of the worktree: try again") from None
            await asyncio.sleep(_LOOK)
        else:
            return


def _volume(over: Overlay) -> Mapping[str, str]:
    """The layers as a volume of the engine's own, mounted while the container runs.

    Read with the lock held. Raises OSError.
    """
    above = [f"{over.layers}/{name}" for name in stack.read(over.stack)] if over.stack else []
    lowers = [*above, *over.lowers]
    if len(lowers) > overlay.MOST_LOWERS:
        raise OSError(f"more than {overlay.MOST_LOWERS} layers")
    for path in (over.upper, over.work, *lowers):
        if _PLAIN & set(path):
            raise OSError(f"{path}: a path of a layer has a comma, a colon or a backslash in it")
        if Path(path).is_symlink() or not Path(path).is_dir():
            raise OSError(f"{path}: not a directory; where git was interrupted, try again")
    options = overlay.options(lowers, over.upper, over.work, over.xattrs)
    return {"type": "overlay", "device": "overlay", "o": f"{options},nosuid,nodev"}
