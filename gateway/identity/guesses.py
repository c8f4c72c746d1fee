"""How many tokens that are not valid may be looked up for one address."""

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from cove.errors.v1.errors_pb2 import ErrorReason
from servicekit.errors import ResourceExhausted

_BURST: Final = 100.0
_EACH_SECOND: Final = 10.0
_HOSTS: Final = 10_000
_RETRY: Final = timedelta(seconds=1)


class TooManyGuesses(ResourceExhausted):
    """Callers with tokens that are known here already are let in nevertheless."""

    reason = ErrorReason.ERROR_REASON_AUTHENTICATION_LIMIT

    def __init__(self) -> None:
        super().__init__("too many tokens that are not valid", retry_after=_RETRY)


class Guesses:
    """Counts those that were not valid: 100 at once, and 10 each second, for each address."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """How many are left of each address, at a time; those that are not here have all."""

    def check(self, host: str) -> None:
        """Raises `TooManyGuesses` when none is left."""
        if self._of(host) < 1:
            raise TooManyGuesses

    def failed(self, host: str) -> None:
        """One from there was not valid."""
        left = max(0.0, self._of(host) - 1)
        self._left[host] = left, self._now()
        self._left.move_to_end(host)
        if len(self._left) > _HOSTS:
            self._left.popitem(last=False)

    def _of(self, host: str) -> float:
        left, at = self._left.get(host, (_BURST, 0.0))
        return min(_BURST, left + (self._now() - at) * _EACH_SECOND)
