"""What time it is, for what lives until a date: a clock that jumps must not end it at once."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

_SLACK: Final = timedelta(minutes=1)
"""How far the wall clock may get ahead between two looks without being a jump."""
_DOUBT: Final = timedelta(hours=1)
"""How long a jump forward has to last to be believed."""


class Clock:
    """The wall clock, but for jumps forward: those count only when they have lasted for an hour.

    So a clock that is set forward by mistake, and back, ends nothing. One that is set back is
    believed at once: what lives until a date lives longer then.

    `wall` and `elapsed` are seconds, the latter of a clock that nobody sets and that goes on
    while the machine sleeps.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._wall = wall
        self._elapsed = elapsed
        self._base = wall(), elapsed()
        self._jumped: float | None = None
        """When the jump that is doubted was seen, by `elapsed`."""

    def now(self) -> datetime:
        """The time by which what is due is decided."""
        wall, elapsed = self._wall(), self._elapsed()
        expected = self._base[0] + elapsed - self._base[1]
        if wall > expected + _SLACK.total_seconds():
            if self._jumped is None:
                self._jumped = elapsed
            if elapsed - self._jumped < _DOUBT.total_seconds():
                return datetime.fromtimestamp(expected, UTC)
        self._jumped = None
        self._base = wall, elapsed
        return datetime.fromtimestamp(wall, UTC)

    def latest(self) -> datetime:
        """The later one of the wall clock's time and `now`: what is promised counts from it."""
        return max(self.now(), datetime.fromtimestamp(self._wall(), UTC))
