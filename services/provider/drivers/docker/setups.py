"""Images after a setup: scripts that were run on an image once, for all who name the same.

By content: the key of one is of the tenant, the digest of the image and the scripts. The engine
keeps the image under that name; here is only noted when it was used last.
"""

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from services.provider.drivers.docker.building import Builder
from services.provider.drivers.docker.engine import Engine, EngineError
from services.provider.drivers.docker.images import Image
from services.provider.drivers.docker.labels import Labels
from services.provider.drivers.docker.shape import Building, Made
from services.provider.drivers.records import Record

_log = logging.getLogger(__name__)

REPOSITORY: Final = "cove-setup"
_FORM: Final = 1


def key_of(record: Record) -> str:
    """Of the image that a record stands on. Tenants share none: one would learn what another has,
    and get what only that one may reach."""
    named = [_FORM, record.tenant, record.image, list(record.spec.setup)]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


class Setups:
    """Those of an engine. `folder` has a file for each, whose time is that of its last use."""

    def __init__(self, engine: Engine, builder: Builder, folder: Path, labels: Labels) -> None:
        self._engine = engine
        self._builder = builder
        self._folder = folder
        self._labels = labels
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._building: set[str] = set()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def built(self, record: Record, made: Made) -> Image:
        """The image after the setup of a record, which is run unless it was before.

        `made` has the image that it begins with. Raises BuildFailed, Unavailable, EngineAway.
        """
        key = key_of(record)
        spec = record.spec
        # A second who asks waits for the first, and builds if that one has failed or left.
        async with self._locks.setdefault(key, asyncio.Lock()):
            identity = await self._kept(key)
            if not identity:
                self._building.add(key)
                try:
                    wanted = Building(setup=spec.setup, limits=spec.limits, network=spec.network)
                    labels = self._labels.of_setup(key)
                    container = f"{REPOSITORY}-{key[:32]}"
                    async with self._builder.became(container, wanted, made, labels) as become:
                        identity = await self._engine.commit(become, REPOSITORY, key)
                finally:
                    self._building.discard(key)
            (self._folder / key).touch(mode=0o600)
            return Image(name=spec.image, identity=identity)

    async def tidy(self) -> None:
        """Remove what builds left that an earlier provider did not live to end."""
        for each in await self._engine.containers(self._labels.ours):
            key = self._labels.setup(each.labels)
            if key and key not in self._building:
                await self._engine.remove(each.identity)

    async def expire(self, age: timedelta, in_use: Callable[[], Collection[str]]) -> None:
        """Remove those that nobody has used for so long, but for the keys `in_use`."""
        old = time.time() - age.total_seconds()
        found = {
            key: str(each["Id"])
            for each in await self._engine.images(self._labels.ours)
            if (key := self._labels.setup(each.get("Labels") or {}))
        }
        expired = {key for key in found if self._used(key) < old and key not in self._building}
        if not expired:
            return
        for key in expired - set(await asyncio.to_thread(in_use)):
            await self._engine.remove_image(f"{REPOSITORY}:{key}")
            (self._folder / key).unlink(missing_ok=True)
            _log.info("the image of a setup was not used for long", extra={"fields": {"key": key}})

    def _used(self, key: str) -> float:
        try:
            return (self._folder / key).stat().st_mtime
        except FileNotFoundError:
            (self._folder / key).touch(mode=0o600)  # Its age begins now.
            return time.time()

    async def _kept(self, key: str) -> str:
        """Its digest; empty where the engine has none. A name alone is not believed."""
        try:
            found = await self._engine.image(f"{REPOSITORY}:{key}")
        except EngineError as error:
            if error.absent:
                return ""
            raise
        labels = (found.get("Config") or {}).get("Labels") or {}
        return str(found["Id"]) if self._labels.setup(labels) == key else ""
