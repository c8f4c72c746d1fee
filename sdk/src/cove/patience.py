"""How long a call is repeated, and how long is waited in between."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final

from cove import status

_LASTED: Final = 30.0
"""Seconds after which a call that breaks off had its share of progress."""

_BACKOFF: Final = (0.05, 1.0)

_TOO_MUCH: Final = frozenset(
    f"ERROR_REASON_{each}" for each in ("RATE_LIMITED", "OVERLOADED", "AUTHENTICATION_LIMIT")
)
"""Of a call that was refused before anything was begun, and may be made again a little later."""


class Patience:
    """How long one call is repeated while nobody answers."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._began = time.monotonic()
        self._failing_since: float | None = None
        self._failures = 0

    def begin(self) -> None:
        """An attempt begins."""
        self._began = time.monotonic()

    def refill(self) -> None:
        """There was progress: what failed before is forgotten."""
        self._failing_since, self._failures = None, 0

    async def wait(self, error: status.CoveError) -> None:
        """Wait until the next attempt, or raise `error` when there shall be none."""
        now = time.monotonic()
        if not isinstance(error, status.Unavailable) and error.reason not in _TOO_MUCH:
            raise error from None  # gRPC's own error says nothing more.
        if error.broken_off and now - self._began > _LASTED:
            self.refill()
        if self._failing_since is None:
            self._failing_since = now
        delay = max(self._pause(), error.retry_after or 0)
        self._failures += 1
        if now - self._failing_since + delay > self._seconds():
            raise error from None
        await asyncio.sleep(delay)

    def _pause(self) -> float:
        """Of our own; the first retry is at once."""
        if not self._failures:
            return 0
        least, most = _BACKOFF
        longer = min(most, least * 2 ** min(self._failures, 10))
        return float(longer * random.SystemRandom().uniform(0.5, 1))
