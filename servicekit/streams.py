"""Calls that last: what ends them before they end by themselves."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from servicekit.errors import ServiceError, Unavailable
from servicekit.identity import Authenticator, Caller
from servicekit.status import Context, ShuttingDown

_log = logging.getLogger(__name__)

LASTS: Final = 30.0
"""Seconds above which the limit of a call makes it one that lasts."""
_EVERY: Final = 0.5
"""Seconds between two looks at who still may be here."""
_PATIENCE: Final = 0.5
"""Seconds that one such look takes at most."""
_UNCERTAIN: Final = "it cannot be found out whether the caller may go on"
_KNOWS: Final = "authentication"


@dataclass(slots=True)
class _Held:
    caller: Caller
    endless: bool
    failure: ServiceError | None = None
    """With which it was ended."""


class Streams:
    """The calls that stream, and those that may last longer than most.

    A server that stops ends those without deadline, which would make every stop last its whole
    grace. Those of callers who are not let in any more end, mostly with UNAUTHENTICATED.
    """

    def __init__(self) -> None:
        self._held: dict[asyncio.Task[Any], _Held] = {}
        self._draining = False

    @property
    def draining(self) -> bool:
        return self._draining

    @contextmanager
    def hold(self, caller: Caller, context: Context, *, endless: bool) -> Iterator[None]:
        """While the block runs the current task may be ended: the failure comes out of it."""
        task = asyncio.current_task()
        assert task is not None
        if endless and self._draining:
            raise ShuttingDown("the service is stopping")
        held = self._held[task] = _Held(caller, endless)
        try:
            yield
        except asyncio.CancelledError:
            if held.failure is None or context.cancelled():
                raise
            task.uncancel()
            raise held.failure from None
        finally:
            del self._held[task]

    def drain(self) -> None:
        self._draining = True
        for task, held in self._held.items():
            if held.endless:
                _end(task, held, ShuttingDown("the service is stopping"))

    @asynccontextmanager
    async def checked(self, authenticator: Authenticator) -> AsyncIterator[None]:
        """While the block runs, callers are asked for again and again who they are."""
        task = asyncio.create_task(self._check(authenticator))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _check(self, authenticator: Authenticator) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            shown: dict[tuple[object, ...], Caller] = {
                _key(held.caller): held.caller for held in self._held.values()
            }
            said = await asyncio.gather(*(_ask(authenticator, each) for each in shown.values()))
            failures = dict(zip(shown, said, strict=True))
            for task, held in self._held.items():
                if failure := failures.get(_key(held.caller)):
                    _end(task, held, failure)


def _key(caller: Caller) -> tuple[object, ...]:
    """What of a caller decides who it is."""
    return caller.metadata.get("authorization", ""), caller.certificate


async def _ask(authenticator: Authenticator, caller: Caller) -> ServiceError | None:
    """Why the caller is not let in; None: it is."""
    try:
        async with asyncio.timeout(_PATIENCE):
            await authenticator.authenticate(caller)
    except TimeoutError:
        return Unavailable(_UNCERTAIN, service=_KNOWS)
    except ServiceError as error:
        return error
    except Exception:  # Nobody may stay because of it, nor may this end.
        _log.exception("it cannot be found out whether a caller may go on")
        return Unavailable(_UNCERTAIN, service=_KNOWS)
    return None


def _end(task: asyncio.Task[Any], held: _Held, failure: ServiceError) -> None:
    if held.failure is None:
        held.failure = failure
        task.cancel()
