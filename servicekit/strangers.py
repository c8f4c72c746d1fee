"""Whoever shows nothing valid is asked about only so often, for each host that it comes from.

To find out that a credential is worth nothing may cost a call to another service, or a signature.
Who was let in a while ago goes on being let in, whatever others do from the same host: it may be a
proxy, which all callers come through.
"""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeVar

from cove.errors.v1.errors_pb2 import ErrorReason
from servicekit.errors import Quota, ResourceExhausted, Unauthenticated
from servicekit.identity import Authenticator, Caller, Identity
from servicekit.rates import NO_TIME, SOON, Overloaded, whole

K = TypeVar("K")
V = TypeVar("V")

_BURST_SECONDS: Final = 10.0
_HOSTS: Final = 10_000
_KNOWN: Final = 10_000
_ASKED: Final = 1_000
_PREFIX: Final = 64
"""Bits of an IPv6 address that belong to one place."""


class AuthenticationLimited(ResourceExhausted):
    """Too much that is not valid came from there."""

    reason = ErrorReason.ERROR_REASON_AUTHENTICATION_LIMIT


class Guarded:
    """An authenticator behind a limit of `rate` failures a second for each host; 0 is none.

    Ten seconds of it may come at once. Raises `AuthenticationLimited` and `Overloaded` besides what
    the authenticator raises.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        rate: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authenticator = authenticator
        self._gap = 1 / rate if rate else 0.0
        self._rate = rate
        self._clock = clock
        self._known: OrderedDict[int, None] = OrderedDict()
        self._due: OrderedDict[str, float] = OrderedDict()
        self._asked = 0

    @property
    def kept(self) -> int:
        """Of how many hosts something is kept."""
        return len(self._due)

    async def authenticate(self, caller: Caller) -> Identity:
        if not self._rate:
            return await self._authenticator.authenticate(caller)
        shown = _mark(caller)
        known = shown in self._known
        if known:
            self._known.move_to_end(shown)
        else:
            self._check(caller.source)
        self._asked += 1
        try:
            identity = await self._authenticator.authenticate(caller)
        except Unauthenticated:
            self._known.pop(shown, None)
            self._failed(caller.source)
            raise
        finally:
            self._asked -= 1
        if not known:
            _keep(self._known, shown, None, _KNOWN)
        return identity

    def _check(self, source: str) -> None:
        if self._asked >= _ASKED:
            raise Overloaded("too many callers are being looked up", retry_after=SOON)
        if not self._due:
            return
        host = host_of(source)
        early = self._due.get(host, 0.0) + self._gap - self._clock() - _BURST_SECONDS
        if early > NO_TIME:
            raise AuthenticationLimited(
                "too much that is not valid was shown from there",
                retry_after=whole(early),
                quotas=[Quota(f"host:{host}", "failures a second", "stranger_rate", self._rate)],
                quota="stranger_rate",
                limit=str(self._rate),
            )

    def _failed(self, source: str) -> None:
        host = host_of(source)
        due = max(self._due.pop(host, 0.0), self._clock()) + self._gap
        _keep(self._due, host, due, _HOSTS)


def _mark(caller: Caller) -> int:
    """Of what was shown, which cannot be read out of memory by it: Python's hash is keyed anew in
    each process. Whoever shows something else of the same mark is asked who it is all the same."""
    return hash((caller.metadata.get("authorization"), caller.certificate))


def host_of(peer: str) -> str:
    """Of a peer as gRPC names it the place: `192.0.2.1`, `2001:db8::/64`, `unix`."""
    kind, _, rest = peer.partition(":")
    if kind == "ipv4":
        return rest.partition(":")[0]
    if kind != "ipv6":
        return kind
    bare = rest.removeprefix("%5B").removeprefix("[").partition("]")[0].partition("%")[0]
    try:
        address = ipaddress.IPv6Address(bare)
    except ValueError:
        return kind
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, _PREFIX), strict=False))


def _keep(kept: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    kept[key] = value
    if len(kept) > most:
        kept.popitem(last=False)
