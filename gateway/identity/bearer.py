"""Tokens of AccessService: found in the registry, and known here for a few seconds.

A token is believed for as long as LIMIT after a lookup that began when it was still valid, and
not a moment beyond its expiry: so a revocation reaches every gateway in that time, also one that is
cut off from the registry. One in use is looked up again long before, together with all others, so
that no call waits for that, and a registry that restarts is not noticed. While the registry is away
for longer, callers get UNAVAILABLE: they are not strangers, and next to nothing could be done for
them without it.

Compared are SHA-256 sums, by a table: whoever could choose a sum would have no need to guess, so
how long that takes tells nothing of a secret.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, Protocol, Self

from cove.options.v1.options_pb2 import Role
from cove.registry.v1.access_pb2 import LookUpTokensResponse
from gateway.identity import secret
from gateway.identity.shown import bearer
from servicekit import calls
from servicekit.errors import Unauthenticated
from servicekit.identity import Caller, Identity
from servicekit.status import away

_log = logging.getLogger(__name__)

LIMIT: Final = 3.5
"""Seconds for which one is believed without having been looked up again."""
_AGAIN: Final = 1.0
"""Seconds after which one that is used is looked up again."""
_KNOWN: Final = 50_000
_UNKNOWN: Final = 10_000
_UNKNOWN_SECONDS: Final = 5.0
_BATCH: Final = 1000
_SECONDS: Final = 2.0
_WORKSPACES: Final = "workspaces/"
_GATEWAY: Final = Identity("gateway", "", Role.ROLE_SERVICE)


class Registry(Protocol):
    """Where tokens are looked up."""

    async def look_up(self, hashes: Sequence[bytes], timeout: float) -> LookUpTokensResponse:
        """Raises whatever it fails with."""
        ...


class _Known(NamedTuple):
    identity: Identity
    looked_up: float
    until: float
    """When it expires."""


class BearerAuthenticator:
    """Lets in who shows the secret of a token that is valid. Made by `open`."""

    def __init__(self, registry: Registry, now: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._now = now
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._asked: dict[bytes, asyncio.Future[_Known | None]] = {}
        """What is to be looked up, and what is on its way."""
        self._new: list[bytes] = []
        self._more = asyncio.Event()
        self._revoked: dict[tuple[str, str], float] = {}
        """By this gateway, lately."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls, registry: Registry, now: Callable[[], float] = time.monotonic
    ) -> AsyncIterator[Self]:
        authenticator = cls(registry, now)
        task = asyncio.create_task(authenticator._look_up())
        try:
            yield authenticator
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @staticmethod
    def applies(caller: Caller) -> bool:
        return secret.is_one(bearer(caller))

    async def authenticate(self, caller: Caller) -> Identity:
        """Raises `Unauthenticated`, and `Unavailable` when it cannot be found out."""
        hash_, now = secret.hash_of(bearer(caller)), self._now()
        known = self._known.get(hash_)
        if known and now < min(known.until, known.looked_up + LIMIT):
            if now > known.looked_up + _AGAIN:
                self._ask(hash_)
            return known.identity
        if now < self._unknown.get(hash_, now):
            raise Unauthenticated("no valid token")
        found = await asyncio.shield(self._ask(hash_))
        if found is None or self._now() >= found.until:
            raise Unauthenticated("no valid token")
        return found.identity

    def forget(self, tenant: str, name: str) -> None:
        """This token was revoked: nothing more is believed of it here."""
        now, gone = self._now(), (tenant, principal(name))
        self._revoked = {key: at for key, at in self._revoked.items() if now < at + LIMIT}
        self._revoked[gone] = now
        for hash_, known in list(self._known.items()):
            if _who(known.identity) == gone:
                del self._known[hash_]
                self._unknown[hash_] = now + _UNKNOWN_SECONDS

    def _ask(self, hash_: bytes) -> "asyncio.Future[_Known | None]":
        found = self._asked.get(hash_)
        if found is None:
            found = self._asked[hash_] = asyncio.get_running_loop().create_future()
            found.add_done_callback(_retrieved)  # It may be that nobody waits for it.
            self._new.append(hash_)
            self._more.set()
        return found

    async def _look_up(self) -> None:
        """For ever, all that have gathered at once."""
        while True:
            await self._more.wait()
            batch, self._new = self._new[:_BATCH], self._new[_BATCH:]
            if not self._new:
                self._more.clear()
            began = self._now()
            try:
                with calls.detached(identity=_GATEWAY, correlation_id=calls.new_correlation_id()):
                    answer = await self._registry.look_up(batch, _SECONDS)
            except Exception as error:  # Whatever it is: the callers are no strangers.
                _log.info("tokens cannot be looked up: %s", type(error).__name__)
                for each in batch:
                    self._asked.pop(each).set_exception(away("registry"))
            else:
                self._learn(batch, answer, began)

    def _learn(self, batch: Sequence[bytes], answer: LookUpTokensResponse, began: float) -> None:
        found = {each.hash: each for each in answer.found}
        for hash_ in batch:
            self._known.pop(hash_, None)
            known = _known(found[hash_], began) if hash_ in found else None
            if known and began < self._revoked.get(_who(known.identity), began):
                known = None  # It was on its way then.
            if known:
                self._known[hash_] = known
            else:
                self._unknown[hash_] = began + _UNKNOWN_SECONDS
            self._asked.pop(hash_).set_result(known)
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        while len(self._unknown) > _UNKNOWN:
            self._unknown.popitem(last=False)


def _known(found: LookUpTokensResponse.Found, began: float) -> _Known:
    token = found.token
    identity = Identity(
        principal=principal(token.name),
        tenant=token.tenant,
        role=token.role,
        workspace=token.workspace.removeprefix(_WORKSPACES),
        workspace_uid=token.workspace_uid,
    )
    # Counted from before it was asked for: none lasts longer than it may.
    return _Known(identity, began, began + found.remaining.ToNanoseconds() / 1e9)


def principal(name: str) -> str:
    """Who acts by the token `tokens/{id}`, as the audit log names it."""
    return "token:" + name.removeprefix("tokens/")


def _who(identity: Identity) -> tuple[str, str]:
    return identity.tenant, identity.principal


def _retrieved(future: "asyncio.Future[_Known | None]") -> None:
    if not future.cancelled():
        future.exception()
