"""Callers who show a JWT of an issuer that is trusted, say of OpenID Connect."""

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import jwt

from cove.options.v1.options_pb2 import Role
from gateway.identity.keys import ALGORITHMS, Keys
from gateway.identity.names import RIGHTS, ROLES, TENANT, Rights, principal
from servicekit.errors import Unauthenticated
from servicekit.identity import Caller, Identity

_log = logging.getLogger(__name__)

_DOTS: Final = 2
_LONGEST: Final = 16 << 10
_REMEMBERED: Final = 1024
_NOTHING: Final = (0.0, 0, Identity("", "", Role.ROLE_UNSPECIFIED))
_LEEWAY: Final = 30
"""Seconds by which clocks may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a token must say, and where it says whose it is."""

    issuer: str
    audience: str
    principal: str = "sub"
    tenant: str = ""
    """Empty: all tokens are of `fixed_tenant`."""

    fixed_tenant: str = "default"
    role: str = ""
    """Empty: all tokens have `fixed_role`."""

    fixed_role: str = "reader"
    roles: Mapping[str, str] = field(default_factory=lambda: {each: each for each in ROLES})
    """What values of the claim mean."""

    def identity(self, claims: Mapping[str, Any]) -> Identity:
        """Raises `Unauthenticated` for a token that does not say whose it is."""
        name, tenant = _claim(claims, self.principal), self.fixed_tenant
        if self.tenant:
            tenant = _claim(claims, self.tenant)
        if not isinstance(name, str) or not name:
            raise Unauthenticated("the token names nobody", claim=self.principal)
        if not isinstance(tenant, str) or not TENANT.fullmatch(tenant):
            raise Unauthenticated("the token names no tenant", claim=self.tenant)
        issuer = urlsplit(self.issuer).netloc
        role, operator = self._rights(claims)
        return Identity(principal(f"jwt:{issuer}:{name}"), tenant, role, operator=operator)

    def _rights(self, claims: Mapping[str, Any]) -> Rights:
        """The highest that it has."""
        if not self.role:
            return ROLES[self.fixed_role]
        value = _claim(claims, self.role)
        values = value if isinstance(value, list) else [value]
        names = [each for each in values if isinstance(each, str)]
        found = [RIGHTS[self.roles[each]] for each in names if each in self.roles]
        if not found:
            raise Unauthenticated("the token has no role here", claim=self.role)
        return max(found)


class JwtAuthenticator:
    """Lets in who shows `authorization: Bearer` and a token that the issuer has signed.

    What was found right is remembered until it expires or the keys change, as to check a
    signature costs as much as half a call.
    """

    def __init__(self, claims: Claims, keys: Keys, now: Callable[[], float] = time.time) -> None:
        self._claims = claims
        self._keys = keys
        self._now = now
        self._known: OrderedDict[bytes, tuple[float, int, Identity]] = OrderedDict()

    @staticmethod
    def applies(caller: Caller) -> bool:
        """Whether it is the form of a JWT."""
        scheme, _, token = caller.metadata.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and token.count(".") == _DOTS

    async def authenticate(self, caller: Caller) -> Identity:
        token = caller.metadata["authorization"].partition(" ")[2].strip()
        digest = hashlib.sha256(token.encode()).digest()
        until, remembered, identity = self._known.get(digest, _NOTHING)
        generation = self._keys.generation
        if remembered == generation and until > self._now():
            return identity
        self._known.pop(digest, None)
        claims = await self._verified(token)
        identity = self._claims.identity(claims)
        # As they were before: a key that was withdrawn meanwhile is not remembered as a later one.
        self._known[digest] = int(claims["exp"]) + _LEEWAY, generation, identity
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return identity

    async def _verified(self, token: str) -> Mapping[str, Any]:
        try:
            if len(token) > _LONGEST:
                raise jwt.InvalidTokenError("too long")
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise jwt.InvalidAlgorithmError("not an algorithm that is allowed")
            key = await self._keys.find(header.get("kid"))
            if key is None:
                raise jwt.InvalidKeyError("no key of the issuer")
            # The key says by which algorithm, not the token.
            found: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._claims.audience,
                issuer=self._claims.issuer,
                leeway=_LEEWAY,
                options={"require": ["exp", "iss", "aud"]},
            )
            return found
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the token has expired") from None
        except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
            _log.info("a token is not valid: %s", type(error).__name__)
            raise Unauthenticated("no valid token") from None


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """One claim, by its name or by the way to it: `realm_access.roles`."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
