"""Asks the stand-in of a driver, and tells what it refuses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from agent.standin.client import PeerGone, PeerTooOld, StandinClient, StandinError
from servicekit.errors import ServiceError, Unavailable
from services.provider.drivers.making import BUILD
from services.provider.errors import (
    BuildFailed,
    HandleInvalid,
    HandleStale,
    ProvisionedDifferently,
    SandboxUnavailable,
)

_PAGE: Final = 500
_LONG: Final = 40
_SHORT: Final = 20
"""Requests at once, of those that may take long and of all others. It has 64 connections, and sends
away who comes then."""


class Standins:
    """The stand-in at one socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._long = asyncio.Semaphore(_LONG)
        self._short = asyncio.Semaphore(_SHORT)

    async def ask(self, verb: str, timeout: float = 30.0, **arguments: Any) -> dict[str, Any]:
        """Its answer. Raises Unavailable, HandleInvalid, HandleStale, BuildFailed and the like."""
        places = self._long if timeout >= BUILD else self._short
        async with places, self._connected() as standin:
            try:
                return await standin.ask(verb, timeout, **arguments)
            except StandinError as error:
                raise _told(error, str(arguments.get("uid", ""))) from error

    async def listing(self) -> list[dict[str, Any]]:
        """A row of each environment that it keeps, some at a time: an answer has a limit."""
        rows: list[dict[str, Any]] = []
        while True:
            after = str(rows[-1]["uid"]) if rows else ""
            told = await self.ask("list", after=after, most=_PAGE)
            rows += told["environments"]
            if not told["more"]:
                return rows

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[StandinClient]:
        try:
            async with StandinClient.connect(self._path) as standin:
                yield standin
        except (PeerGone, PeerTooOld) as error:
            raise Unavailable(
                f"the {self._path.name} stand-in is away", service=self._path.name
            ) from error


def _told(error: StandinError, uid: str) -> ServiceError:
    said = str(error)
    match error.reason:
        case "behind":
            return HandleStale("the environment has gone on since", uid=uid, generation=said)
        case "invalid":
            return HandleInvalid("handle", said)
        case "differs":
            return ProvisionedDifferently("the uid has another environment", uid=uid)
        case "image_not_found" | "image_denied" | "setup_failed":
            return BuildFailed(
                "the image or its setup cannot be had", remedy=error.remedy, cause=said[-1000:]
            )
        case "unavailable":
            return SandboxUnavailable(said, remedy=error.remedy, cause=said)
        case _:
            return Unavailable("the engine failed", service="dagger", cause=said[:300])
