"""Calls that go on: what ends them before they end by themselves."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, TypeAlias

from servicekit.errors import ServiceError, Unauthenticated, Unavailable
from servicekit.identity import TENANT_KEY, Authenticator, Caller, Identity
from servicekit.status import Context, ShuttingDown

_log = logging.getLogger(__name__)

_EVERY: Final = 0.5
"""Seconds between two looks at who still may be here."""
_YOUNG: Final = 0.25
"""Seconds for which a call is not looked at: nearly all are over then."""
_PATIENCE: Final = 0.5
"""Seconds that one such look takes at most."""
_UNCERTAIN: Final = "it cannot be found out whether the caller may go on"
_KNOWS: Final = "authentication"

_Said: TypeAlias = Identity | ServiceError
"""Who a caller is, or why it is not let in."""


class Streams:
    """The calls that go on.

    A server that stops ends those that have no deadline, which would make every stop last its
    whole grace. Those of callers who are not let in any more, or are somebody else now, end,
    mostly with UNAUTHENTICATED.
    """

    def __init__(self) -> None:
        self._held: set[_Held] = set()
        self._draining = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def draining(self) -> bool:
        return self._draining

    def hold(
        self, caller: Caller, identity: Identity, context: Context, *, endless: bool
    ) -> "_Held":
        """A context manager: while its block runs the current task may be ended, and the failure
        comes out of the block. Raises `ShuttingDown`."""
        if endless and self._draining:
            raise ShuttingDown("the service is stopping")
        # Without a loop it would be looked up, by a call of the kernel.
        loop = self._loop = self._loop or asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        return _Held(self._held, task, caller, identity, context, endless)

    def drain(self) -> None:
        self._draining = True
        for held in self._held:
            if held.endless:
                held.end(ShuttingDown("the service is stopping"))

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
        looked = time.monotonic()
        while True:
            # From look to look, so that slow answers put off none.
            await asyncio.sleep(looked + _EVERY - time.monotonic())
            looked = time.monotonic()
            held = [each for each in self._held if each.since < looked - _YOUNG]
            callers = {_key(each.caller): each.caller for each in held}
            answers = await asyncio.gather(
                *(_ask(authenticator, each) for each in callers.values())
            )
            said = dict(zip(callers, answers, strict=True))
            for each in held:
                each.judge(said[_key(each.caller)])


class _Held:
    """A call; see `Streams.hold`. Every call has one: so it is no more than it must be."""

    __slots__ = ("_all", "_context", "_failure", "_identity", "_task", "caller", "endless", "since")

    def __init__(
        self,
        all_: "set[_Held]",
        task: "asyncio.Task[Any]",
        caller: Caller,
        identity: Identity,
        context: Context,
        endless: bool,
    ) -> None:
        self._all = all_
        self._task = task
        self._identity = identity
        self._context = context
        self._failure: ServiceError | None = None
        self.caller = caller
        self.endless = endless
        self.since = time.monotonic()

    def __enter__(self) -> None:
        self._all.add(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._all.discard(self)
        if self._failure is None or kind is not asyncio.CancelledError or self._context.cancelled():
            return
        self._task.uncancel()
        raise self._failure from None

    def judge(self, said: _Said) -> None:
        """End it unless its caller is who it was."""
        if isinstance(said, ServiceError):
            self.end(said)
        elif said != self._identity:
            self.end(Unauthenticated("the caller is not who it was when this began"))

    def end(self, failure: ServiceError) -> None:
        # It may be over since it was looked for: then its task is about something else.
        if self._failure is None and self in self._all:
            self._failure = failure
            self._task.cancel()


def _key(caller: Caller) -> tuple[object, ...]:
    """What of a caller decides who it is."""
    metadata = caller.metadata
    return metadata.get("authorization", ""), metadata.get(TENANT_KEY, ""), caller.certificate


async def _ask(authenticator: Authenticator, caller: Caller) -> _Said:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await authenticator.authenticate(caller)
    except TimeoutError:
        return Unavailable(_UNCERTAIN, service=_KNOWS)
    except ServiceError as error:
        return error
    except Exception:  # Nobody may stay because of it, nor may this end.
        _log.exception("it cannot be found out whether a caller may go on")
        return Unavailable(_UNCERTAIN, service=_KNOWS)
