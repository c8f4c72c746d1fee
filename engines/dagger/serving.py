"""What the driver `dagger`, in the provider, asks this process for."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from agent.standin.server import Told, Verb
from engines.dagger.environments import Environments
from engines.dagger.errors import (
    DaggerFailure,
    EngineFull,
    EngineLost,
    EngineUnavailable,
    HandleBehind,
    HandleInvalid,
    HandleStale,
    ImageDenied,
    ImageNotFound,
    SetupFailed,
)
from engines.dagger.images import refused
from engines.dagger.pool import Engines
from engines.dagger.settings import Settings

T = TypeVar("T")

_REASONS: tuple[tuple[type[DaggerFailure], str], ...] = (
    (EngineUnavailable, "unavailable"),
    (EngineLost, "lost"),
    (HandleBehind, "behind"),
    (HandleStale, "invalid"),
    (HandleInvalid, "invalid"),
    (ImageNotFound, "image_not_found"),
    (ImageDenied, "image_denied"),
    (SetupFailed, "setup_failed"),
    (EngineFull, "full"),
)


class Verbs:
    """By name, as `agent.standin.server` takes them. Arguments and answers are JSON."""

    def __init__(self, settings: Settings, engines: Engines, environments: Environments) -> None:
        self._settings = settings
        self._engines = engines
        self._environments = environments

    def all(self) -> Mapping[str, Verb]:
        return {
            "facts": self._facts,
            "create": _telling(self._create),
            "check": _telling(self._check),
            "look": _telling(self._look),
            "list": _telling(self._list),
            "remove": _telling(self._remove),
            "export": _telling(self._export),
        }

    async def _facts(self, _: dict[str, Any]) -> dict[str, Any]:
        """Whether environments can be made here, and if not why. An engine is asked."""
        try:
            version = await self._engines.version()
        except DaggerFailure as error:
            return {"problem": str(error), "remedy": error.remedy, "engines": []}
        return {"problem": "", "version": version, "engines": list(self._engines.names)}

    async def _create(self, request: dict[str, Any]) -> dict[str, Any]:
        head = await self._environments.create(
            request["uid"],
            request["tenant"],
            request["image"],
            request["setup"],
            request["tree"],
        )
        return {
            "handle": head.handle(self._settings.node).decode(),
            "generation": head.generation,
        }

    async def _check(self, request: dict[str, Any]) -> dict[str, Any]:
        """The handle in force, for one that a caller has; what is lost is made anew."""
        handle = str(request["handle"]).encode()
        head, anew = await self._environments.recovered(request["uid"], handle)
        return {
            "handle": head.handle(self._settings.node).decode(),
            "generation": head.generation,
            "anew": anew,
        }

    async def _look(self, request: dict[str, Any]) -> dict[str, Any]:
        """What is kept of one; the engine is not asked."""
        return self._row(request["uid"]) or {}

    async def _list(self, _: dict[str, Any]) -> dict[str, Any]:
        uids = self._environments.heads.uids()
        return {"environments": [row for uid in uids if (row := self._row(uid))]}

    async def _remove(self, request: dict[str, Any]) -> dict[str, Any]:
        """The engine removes what it kept when nobody has a name for it any more."""
        return {"found": self._environments.heads.remove(request["uid"])}

    async def _export(self, request: dict[str, Any]) -> dict[str, Any]:
        """An image after its setup, as a tar that another driver loads."""
        path = Path(request["path"])
        await self._environments.export(
            request["image"], request["setup"], path, docker=bool(request.get("docker"))
        )
        return {"path": str(path)}

    def _row(self, uid: str) -> dict[str, Any] | None:
        record, head = self._environments.heads.record(uid), self._environments.heads.head(uid)
        if record is None or head is None:
            return {"uid": uid, "whole": False}
        return {
            "uid": uid,
            "whole": True,
            "tenant": record.tenant,
            "made": record.made,
            "handle": head.handle(self._settings.node).decode(),
            "generation": head.generation,
        }


def _telling(verb: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> Verb:
    async def told(request: dict[str, Any]) -> dict[str, Any]:
        try:
            return await verb(request)
        except DaggerFailure as error:
            raise _told(error) from error

    return told


def _told(error: DaggerFailure) -> Told:
    reason = next((name for kind, name in _REASONS if isinstance(error, kind)), "failed")
    if isinstance(error, SetupFailed):
        message = f"a command of the setup ended with {error.code}: {error.tail}"
        return Told(reason, message, "Mend the setup; this is what it wrote last.")
    if isinstance(error, ImageNotFound | ImageDenied):
        return Told(reason, str(error), refused(error))
    if isinstance(error, HandleBehind):
        return Told(reason, str(error.generation))
    return Told(reason, str(error), error.remedy)
