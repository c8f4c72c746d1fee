"""Records that were read lately, kept true by the registry's watch: reads need not ask again.

What the watch tells replaces what is here, and so does every answer that this gateway gets; a
later revision is never replaced by an earlier one. So a caller sees what it wrote through this
gateway; what others write it sees as soon as the watch tells it. While the watch is cut, or silent
for longer than its heartbeats allow, nothing is answered from here; when it is back all begins
anew, so it does not matter what was missed.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Final, NamedTuple, TypeAlias

import grpc

from cove.registry.v1.registry_pb2 import Environment, WatchEnvironmentsResponse
from servicekit.errors import ServiceError

_log = logging.getLogger(__name__)

_RECORDS: Final = 10_000
_BYTES: Final = 32 << 20
SILENCE: Final = 25.0
"""Seconds without a word of the watch after which it may be cut without our knowing."""
_FIRST_PAUSE: Final = 0.1
_LAST_PAUSE: Final = 5.0
_GONE: Final = 2**63 - 1

Watch: TypeAlias = Callable[[], AsyncGenerator[WatchEnvironmentsResponse, None]]
"""Follows all tenants from now on: `snapshot_end` first, then what happens."""


class Key(NamedTuple):
    tenant: str
    name: str


class _Kept(NamedTuple):
    revision: int
    document: bytes


class Load:
    """A read of a record that is on its way, and what happened to the record meanwhile."""

    def __init__(self, revision: int) -> None:
        self.revision = revision
        """What comes is kept only if it is no older than this."""


class Memory:
    def __init__(
        self,
        *,
        records: int = _RECORDS,
        max_bytes: int = _BYTES,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._most = records
        self._most_bytes = max_bytes
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._bytes = 0
        self._loads: dict[Key, set[Load]] = {}
        self._heard: float | None = None
        """When the watch said something; None: it is cut."""

    @property
    def follows(self) -> bool:
        """Whether what is here is true."""
        return self._heard is not None and self._now() - self._heard < SILENCE

    def find(self, key: Key) -> Environment | None:
        """A copy; None: it has to be asked for."""
        if not self.follows or (kept := self._kept.get(key)) is None:
            return None
        self._kept.move_to_end(key)
        return Environment.FromString(kept.document)

    @contextmanager
    def loading(self, key: Key) -> Iterator[Load]:
        """While the block reads the record, to be handed to `keep`."""
        # What the watch told before it began is known to nobody.
        load = Load(0 if self.follows else _GONE)
        self._loads.setdefault(key, set()).add(load)
        try:
            yield load
        finally:
            self._loads[key].discard(load)
            if not self._loads[key]:
                del self._loads[key]

    def keep(self, load: Load, environment: Environment) -> None:
        """What was read, unless the record was written meanwhile, or nobody would tell of that."""
        if self.follows and environment.revision >= load.revision:
            self._put(Key(environment.tenant, environment.name), environment)

    def learn(self, environment: Environment) -> None:
        """It is so, or was: what is here and older is replaced."""
        key = Key(environment.tenant, environment.name)
        self._spoil(key, environment.revision)
        if (kept := self._kept.get(key)) and kept.revision < environment.revision:
            self._put(key, environment)

    def forget(self, key: Key, revision: int = _GONE) -> None:
        """It is gone since this revision; without one: nobody knows."""
        self._spoil(key, revision)
        if (kept := self._kept.get(key)) and kept.revision < revision:
            self._drop(key)

    async def follow(self, watch: Watch) -> None:
        """For ever."""
        pause = _FIRST_PAUSE
        while True:
            try:
                async with aclosing(watch()) as events:
                    async for event in events:
                        self._tell(event)
                        if self._heard is not None:
                            pause = _FIRST_PAUSE
            except (ServiceError, grpc.aio.AioRpcError) as error:
                _log.info("records are read from the registry: %s", error)
            except Exception:
                _log.exception("records are read from the registry")
            finally:
                self._cut()
            await asyncio.sleep(pause)
            pause = min(_LAST_PAUSE, pause * 2)

    def hear(self, event: WatchEnvironmentsResponse) -> None:
        """What any watch tells."""
        match event.WhichOneof("event"):
            case "put":
                self.learn(event.put)
            case "delete":
                self.forget(Key(event.delete.tenant, event.delete.name), event.delete.revision)

    def _tell(self, event: WatchEnvironmentsResponse) -> None:
        """What the one tells that is followed."""
        self.hear(event)
        if self._heard is not None or event.HasField("snapshot_end"):
            self._heard = self._now()

    def _cut(self) -> None:
        self._heard = None
        self._kept.clear()
        self._bytes = 0
        for key in self._loads:
            self._spoil(key, _GONE)

    def _put(self, key: Key, environment: Environment) -> None:
        if (kept := self._kept.get(key)) and kept.revision > environment.revision:
            return
        self._drop(key)
        document = environment.SerializeToString()
        self._kept[key] = _Kept(environment.revision, document)
        self._bytes += len(document)
        while self._bytes > self._most_bytes or len(self._kept) > self._most:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Key) -> None:
        if kept := self._kept.pop(key, None):
            self._bytes -= len(kept.document)

    def _spoil(self, key: Key, revision: int) -> None:
        for load in self._loads.get(key, ()):
            load.revision = max(load.revision, revision)


@asynccontextmanager
async def following(memory: Memory, watch: Watch) -> AsyncGenerator[None, None]:
    """While the block runs."""
    task = asyncio.create_task(memory.follow(watch))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
