"""How much of each RPC a caller may have: calls a second, and calls that are open at once.

The RPCs have three costs, read off their options, so that a new one has its limit the day it is
added. What is kept of a principal and an RPC is one number of each; of those who have no call
open the ones seen last are kept, so that memory is bounded whoever comes.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final, TypeAlias

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.options.v1.options_pb2 import Role
from servicekit.errors import Quota, ResourceExhausted
from servicekit.identity import Identity
from servicekit.policy import Policy

BURST_SECONDS: Final = 2.0
"""So much of a rate may come at once."""
NO_TIME: Final = 1e-6
"""Seconds that sums of such numbers may be wrong by."""
_KEPT: Final = 20_000
SOON: Final = timedelta(seconds=1)
_SERVICE: Final = Role.ROLE_SERVICE
_FREE: Final = nullcontext()


class RateLimited(ResourceExhausted):
    """One principal asks for more than its share; others are served."""

    reason = ErrorReason.ERROR_REASON_RATE_LIMITED


class Overloaded(ResourceExhausted):
    """The service has as much to do as it can, or could not do this before its deadline."""

    reason = ErrorReason.ERROR_REASON_OVERLOADED


class Cost(Enum):
    READ = "read"
    """Changes nothing."""
    WRITE = "write"
    HEAVY = "heavy"
    """Changes something, and may take more than half a minute."""

    @classmethod
    def of(cls, policy: Policy) -> "Cost":
        if policy.reads:
            return cls.READ
        return cls.HEAVY if policy.lasts else cls.WRITE


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Of each principal and RPC, and of all together; 0 is no limit."""

    read: int = 0
    """Calls a second, by what an RPC costs."""
    write: int = 0
    heavy: int = 0
    open_calls: int = 0
    """Of one principal and RPC that are open at once."""
    total_calls: int = 0
    """Of all that are open at once."""


Enter: TypeAlias = Callable[[Identity], AbstractContextManager[None]]
"""Takes a call in while the block runs. Raises `RateLimited` and `Overloaded`."""


Admission: TypeAlias = Callable[[str, Policy], Enter]
"""The door of one RPC, by its path and policy."""


def everyone(_path: str, _policy: Policy) -> Enter:
    """For a tool: who calls it is of the suite, and was admitted."""
    return lambda _: _FREE


class Limiter:
    """The admission of a server that strangers call. Services of the suite have no limit."""

    def __init__(self, rates: Rates, clock: Callable[[], float] = time.monotonic) -> None:
        self.rates = rates
        self.clock = clock
        self.open = 0
        self._uses: OrderedDict[tuple[str, str, str], Use] = OrderedDict()

    def __call__(self, path: str, policy: Policy) -> Enter:
        return Door(self, path, Cost.of(policy)).enter

    @property
    def kept(self) -> int:
        """Of how many principals and RPCs something is kept."""
        return len(self._uses)

    def use(self, key: tuple[str, str, str]) -> "Use":
        """What a principal has of an RPC."""
        use = self._uses.get(key)
        if use is None:
            use = self._uses[key] = Use(self)
            self._forget()
        else:
            self._uses.move_to_end(key)
        return use

    def _forget(self) -> None:
        while len(self._uses) > max(_KEPT, 2 * self.open):
            key, use = self._uses.popitem(last=False)
            if use.open:
                self._uses[key] = use


class Use:
    """What one principal has of one RPC; as a context manager, one open call of it."""

    __slots__ = ("_limiter", "due", "open")

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self.open = 0
        self.due = 0.0
        """When all that came is as many calls as the rate allows until then."""

    def __enter__(self) -> None:
        self.open += 1
        self._limiter.open += 1

    def __exit__(self, *_: object) -> None:
        self.open -= 1
        self._limiter.open -= 1


class Door:
    """Of one RPC."""

    def __init__(self, limiter: Limiter, path: str, cost: Cost) -> None:
        self._limiter = limiter
        self._path = path
        self._cost = cost.value
        self._rate: int = getattr(limiter.rates, cost.value)

    def enter(self, identity: Identity) -> AbstractContextManager[None]:
        limiter = self._limiter
        if identity.role == _SERVICE:
            return _FREE
        rates = limiter.rates
        if rates.total_calls and limiter.open >= rates.total_calls:
            raise Overloaded(
                "too many calls are open", retry_after=SOON, limit=str(rates.total_calls)
            )
        use = limiter.use((identity.tenant, identity.principal, self._path))
        if rates.open_calls and use.open >= rates.open_calls:
            raise self._refusal(identity, "open_calls", rates.open_calls, SOON)
        if self._rate:
            now = limiter.clock()
            due = max(use.due, now)
            early = due + 1 / self._rate - now - BURST_SECONDS
            if early > NO_TIME:
                later = whole(early)
                raise self._refusal(identity, f"{self._cost}_rate", self._rate, later)
            use.due = due + 1 / self._rate
        return use

    def _refusal(
        self, identity: Identity, what: str, limit: int, retry_after: timedelta
    ) -> RateLimited:
        return RateLimited(
            "the principal calls this too often",
            retry_after=retry_after,
            quotas=[Quota(f"principal:{identity.principal}", f"{self._path} of it", what, limit)],
            quota=what,
            limit=str(limit),
        )


def whole(seconds: float) -> timedelta:
    """Rounded up to a millisecond: who comes back then is not early."""
    return timedelta(milliseconds=math.ceil(seconds * 1000))
