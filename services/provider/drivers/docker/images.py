"""Images: what a name means today, kept by digest; and what of one the container must know."""

import asyncio
import logging
import platform
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent import SANDBOX_UID, installing
from servicekit.errors import InvalidArgument
from services.provider.drivers.docker.engine import Engine, EngineError
from services.provider.drivers.docker.labels import Labels
from services.provider.drivers.making import BUILD
from services.provider.errors import ImageUnavailable

_log = logging.getLogger(__name__)

_PART: Final = "[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_HOST: Final = "[A-Za-z0-9]+(?:[.-][A-Za-z0-9]+)*(?::[0-9]{1,5})?"
_REFERENCE: Final = re.compile(
    f"(?:{_HOST}/)?{_PART}(?:/{_PART})*"
    "(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
"""As the engine takes names; such a one leads nowhere else in its API."""
_IDENTITY: Final = re.compile(r"sha256:[0-9a-f]{64}")
_MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
_MOST: Final = 1 << 20
"""Bytes of a list of users that are read."""
_OFTEN: Final = 5.0
"""Seconds between two lines of log about a fetch."""
_USERS: Final = {
    "passwd": f"cove:x:{SANDBOX_UID}:{SANDBOX_UID}:Cove:/home/cove:/bin/sh",
    "group": f"cove:x:{SANDBOX_UID}:",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image as it was when its name was resolved; no name is looked up again."""

    name: str
    """What was asked for."""
    identity: str
    """The engine's own digest, `sha256:…`: what is run."""
    source: str = ""
    """The name with the registry's digest, by which another engine finds it; empty where it has
    never been in a registry."""


def check_name(name: str) -> None:
    """Raises InvalidArgument for what is no name of an image."""
    if not (_REFERENCE.fullmatch(name) or _IDENTITY.fullmatch(name)):
        raise InvalidArgument("spec.image", "not the name or the digest of an image")


class Images:
    """Those of an engine. What is read of one is kept below `folder`, by digest."""

    def __init__(self, engine: Engine, folder: Path, patience: float = BUILD) -> None:
        """`patience`: seconds that the fetch of one may take; whose registry it is, is anybody."""
        self._engine = engine
        self._folder = folder
        self._patience = patience

    async def resolve(self, name: str) -> Image:
        """What the name means now; it is fetched unless the engine has it.

        Raises InvalidArgument, ImageUnavailable, EngineAway.
        """
        check_name(name)
        try:
            found = await self._engine.image(name)
        except EngineError as error:
            if not error.absent:
                raise _unavailable(name, error) from error
            found = await self._fetched(name)
        if Labels.of_any_setup((found.get("Config") or {}).get("Labels") or {}):
            # It is of the tenant for whom it was made, whoever knows its name, or a part of it.
            raise _unavailable(name, EngineError(404, "no such image"))
        machine = _MACHINES.get(str(found["Architecture"]), str(found["Architecture"]))
        if machine != platform.machine() or found["Os"] != "linux":
            raise ImageUnavailable(
                f"the image is made for {found['Os']} on {machine}",
                remedy=f"Name one for linux on {platform.machine()}.",
                image=name,
            )
        digests = [str(each) for each in found.get("RepoDigests") or ()]
        return Image(name=name, identity=str(found["Id"]), source=digests[0] if digests else "")

    async def have(self, image: Image) -> None:
        """See to it that the engine has exactly this one. Raises ImageUnavailable, EngineAway."""
        for reference in filter(None, (image.identity, image.source)):
            try:
                found = await self._engine.image(reference)
            except EngineError as error:
                if not error.absent:
                    raise _unavailable(image.name, error) from error
                if reference != image.source:
                    continue
                found = await self._fetched(reference)
            if found["Id"] == image.identity:
                return
        raise ImageUnavailable(
            "the image that the environment was made with is gone from the engine",
            remedy=f"Bring {image.identity} back (`docker load`, or `docker pull {image.source}` "
            "where that names a registry), then retry.",
            image=image.name,
        )

    async def users(self, image: Image) -> Path:
        """A folder with its lists of users and groups, `passwd` and `group`, and ours in them."""
        kept = self._folder / image.identity.removeprefix("sha256:")
        if not await asyncio.to_thread(kept.is_dir):
            found = await self._read_users(image)
            await asyncio.to_thread(_write, kept, found)
        return kept

    async def _read_users(self, image: Image) -> dict[str, str]:
        """From a container that is made for it and never started."""
        host = {"NetworkMode": "none"}
        wanted = {"Image": image.identity, "Entrypoint": ["-"], "HostConfig": host}
        container = await self._engine.create("", wanted)
        try:
            return {
                name: _with_ours(await self._engine.read(container, f"/etc/{name}", _MOST), ours)
                for name, ours in _USERS.items()
            }
        finally:
            await self._engine.remove(container)

    async def _fetched(self, name: str) -> dict[str, Any]:
        progress = _Progress(name)
        try:
            async with asyncio.timeout(self._patience):
                await self._engine.pull(name, progress.told)
            return await self._engine.image(name)
        except (EngineError, TimeoutError) as error:
            raise _unavailable(name, error) from error


class _Progress:
    """Tells the log how a fetch goes on, now and then: who waits for one has no other word."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bytes: dict[str, tuple[int, int]] = {}
        self._said = time.monotonic()

    def told(self, each: Mapping[str, Any]) -> None:
        detail = each.get("progressDetail") or {}
        if each.get("id") and detail.get("total"):
            self._bytes[str(each["id"])] = int(detail.get("current", 0)), int(detail["total"])
        if time.monotonic() - self._said > _OFTEN:
            self._said = time.monotonic()
            done, total = (
                (sum(each) for each in zip(*self._bytes.values(), strict=True))
                if (self._bytes)
                else (0, 0)
            )
            fields = {"image": self._name, "bytes": done, "of": total}
            _log.info("fetching an image", extra={"fields": fields})


def _with_ours(text: bytes, ours: str) -> str:
    """A list of users or groups, without any other that has our name or number."""
    name, _, number, *_ = ours.split(":")
    lines = text.decode(errors="replace").splitlines()
    others = [
        each for each in lines if each.split(":")[0] != name and each.split(":")[2:3] != [number]
    ]
    return "\n".join([*others, ours, ""])


def _write(folder: Path, files: Mapping[str, str]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))  # Of this call.
    for name, text in files.items():
        (making / name).write_text(text)
    installing.open_to_all(making)
    installing.finished(making, folder)


def _unavailable(name: str, error: EngineError | TimeoutError) -> ImageUnavailable:
    if isinstance(error, TimeoutError):
        return ImageUnavailable(
            "the image was not fetched in time",
            remedy="Bring it to the engine (`docker pull`), then retry.",
            image=name,
        )
    return ImageUnavailable(
        "the engine has no such image, and cannot fetch it",
        remedy="Name an image that a registry has which the engine reaches and is allowed to "
        "read, or bring it to the engine (`docker pull`, `docker load`, `docker import`).",
        image=name,
        cause=str(error)[:500],
    )
