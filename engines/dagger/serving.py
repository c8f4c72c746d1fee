"""What the driver `dagger`, in the provider, asks this process for, and the stand-in too.

The SDK takes a second to load, and may not be there. So it is loaded in a thread, when it is first
needed; what is kept on disk is told without it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent import frames
from agent.standin.runner import Asked, Ending, Output, Refused
from agent.standin.server import Told, Verb
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
from engines.dagger.heads import Heads
from engines.dagger.settings import Settings

if TYPE_CHECKING:
    from engines.dagger.environments import Environments
    from engines.dagger.pool import Engines
    from engines.dagger.running import DaggerRunner

_REASONS: Final[tuple[tuple[type[DaggerFailure], str], ...]] = (
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


class _Parts:
    """All that stands on the SDK."""

    def __init__(
        self, engines: "Engines", environments: "Environments", runner: "DaggerRunner"
    ) -> None:
        self.engines = engines
        self.environments = environments
        self.runner = runner


class Late:
    """`agent.standin.runner.Runner`, and the verbs by name as `agent.standin.server` takes them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._heads = Heads(settings.state / "environments")
        self._loading: asyncio.Task[_Parts] | None = None

    def verbs(self) -> Mapping[str, Verb]:
        return {
            "facts": self._facts,
            "create": _telling(self._create),
            "check": _telling(self._check),
            "look": self._look,
            "list": self._list,
            "remove": self._remove,
            "export": _telling(self._export),
        }

    async def check(self, uid: str, asked: Asked) -> None:
        await (await self._runner()).check(uid, asked)

    async def run(self, uid: str, asked: Asked, output: Output) -> Ending:
        return await (await self._runner()).run(uid, asked, output)

    async def signal(self, *_: object) -> None:
        raise Refused(frames.CANNOT, "signals")

    async def handle(self, uid: str, handle: bytes) -> bytes:
        return await (await self._runner()).handle(uid, handle)

    def touched(self, uid: str) -> None:
        self._heads.touched(uid)

    async def close(self) -> None:
        if self._loading and self._loading.done() and not self._loading.exception():
            await self._loading.result().engines.close()

    async def _runner(self) -> "DaggerRunner":
        try:
            return (await self._parts()).runner
        except EngineUnavailable as error:
            raise Refused(frames.OS_ERROR, str(error), 107) from error

    async def _parts(self) -> _Parts:
        """Raises EngineUnavailable."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._load())
        return await asyncio.shield(self._loading)

    async def _load(self) -> _Parts:
        try:
            await asyncio.to_thread(_imported)
        except ImportError as error:
            raise EngineUnavailable(
                f"the Dagger SDK is not installed: {error.name}",
                "Install the extra: pip install 'cove-server[dagger]'.",
            ) from error
        from engines.dagger.environments import Environments
        from engines.dagger.pool import Engines
        from engines.dagger.running import DaggerRunner

        engines = Engines(self._settings)
        environments = Environments(self._settings, engines, self._heads)
        return _Parts(engines, environments, DaggerRunner(environments, self._settings.node))

    async def _facts(self, _: dict[str, Any]) -> dict[str, Any]:
        """Whether environments can be made here, and if not why. An engine is asked."""
        try:
            self._settings.usable()
            engines = (await self._parts()).engines
            version = await engines.version()
        except DaggerFailure as error:
            return {"problem": str(error), "remedy": error.remedy, "engines": []}
        return {"problem": "", "version": version, "engines": list(engines.names)}

    async def _create(self, request: dict[str, Any]) -> dict[str, Any]:
        head = await (await self._parts()).environments.create(
            request["uid"],
            request["tenant"],
            request["image"],
            request["setup"],
            request["tree"],
            rebuild=bool(request.get("rebuild")),
            source=str(request.get("source", "")),
        )
        return self._told(head.handle(self._settings.node), head.generation)

    async def _check(self, request: dict[str, Any]) -> dict[str, Any]:
        """The handle in force, for one that a caller has; what is lost is made anew."""
        environments = (await self._parts()).environments
        handle = str(request["handle"]).encode()
        head, anew = await environments.recovered(request["uid"], handle)
        return self._told(head.handle(self._settings.node), head.generation) | {"anew": anew}

    async def _look(self, request: dict[str, Any]) -> dict[str, Any]:
        """What is kept of one; the engine is not asked."""
        return self._row(request["uid"])

    async def _list(self, request: dict[str, Any]) -> dict[str, Any]:
        """The first `most` of those whose uids come `after` one."""
        uids = [uid for uid in self._heads.uids() if uid > request["after"]]
        shown = uids[: request["most"]]
        rows = [self._row(uid) for uid in shown]
        return {"environments": rows, "more": len(shown) < len(uids)}

    async def _remove(self, request: dict[str, Any]) -> dict[str, Any]:
        """The engine removes what it kept when nobody has a name for it any more."""
        return {"found": self._heads.remove(request["uid"])}

    async def _export(self, request: dict[str, Any]) -> dict[str, Any]:
        """An image after its setup, as a tar that another driver loads."""
        path = Path(request["path"])
        await (await self._parts()).environments.export(
            request["image"], request["setup"], path, docker=bool(request.get("docker"))
        )
        return {"path": str(path)}

    def _row(self, uid: str) -> dict[str, Any]:
        record, head = self._heads.record(uid), self._heads.head(uid)
        if record is None or head is None:
            return {"uid": uid, "whole": False}
        told = self._told(head.handle(self._settings.node), head.generation)
        return {"uid": uid, "whole": True, "tenant": record.tenant, "made": record.made} | told

    @staticmethod
    def _told(handle: bytes, generation: int) -> dict[str, Any]:
        return {"handle": handle.decode(), "generation": generation}


def _imported() -> None:
    import engines.dagger.running  # noqa: F401


def _telling(verb: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> Verb:
    async def told(request: dict[str, Any]) -> dict[str, Any]:
        try:
            return await verb(request)
        except DaggerFailure as error:
            raise _failed(error) from error

    return told


def _failed(error: DaggerFailure) -> Told:
    reason = next((name for kind, name in _REASONS if isinstance(error, kind)), "failed")
    if isinstance(error, SetupFailed):
        message = f"a command of the setup ended with {error.code}: {error.tail}"
        return Told(reason, message, error.remedy)
    if isinstance(error, HandleBehind):
        return Told(reason, str(error.generation))
    return Told(reason, str(error), error.remedy)
