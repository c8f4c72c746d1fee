"""Who calls: what a caller must show, and what is then known of it."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

import grpc

from cove.options.v1.options_pb2 import Role
from servicekit.errors import Unauthenticated

PRINCIPAL_KEY: Final = "cove-principal"
TENANT_KEY: Final = "cove-tenant"
_SERVICE: Final = Role.ROLE_SERVICE
_UNIX: Final = "unix:"
_URIS: Final = "peer_uri"
TOKEN_KEY: Final = "cove-service-token"  # noqa: S105 - the name of a header, not a secret.


@dataclass(frozen=True, slots=True)
class Identity:
    """A known caller. An empty tenant: the suite itself acts, for no tenant."""

    principal: str
    tenant: str
    role: Role.ValueType


@dataclass(frozen=True, slots=True)
class Caller:
    """What is seen of a caller before it is known who it is."""

    metadata: Mapping[str, str]
    """Headers by lower-case name."""

    peer: str
    """As gRPC names it, for example `unix:` or `ipv4:1.2.3.4:5`."""

    certificate: tuple[str, ...] = ()
    """URIs (SPIFFE ids) in the certificate that the peer showed and TLS has verified."""

    @classmethod
    def of(cls, metadata: Mapping[str, str], context: "grpc.aio.ServicerContext[Any, Any]") -> Self:
        """Who makes the call of `context`."""
        peer = context.peer()
        if peer.startswith(_UNIX):  # Has no TLS: need not be asked.
            return cls(metadata, peer)
        uris = context.auth_context().get(_URIS, ())
        return cls(metadata, peer, tuple(uri.decode("utf-8", "replace") for uri in uris))


class Authenticator(Protocol):
    """Decides who a caller is."""

    async def authenticate(self, caller: Caller) -> Identity:
        """Raises `Unauthenticated`."""
        ...


class ServiceAuthenticator:
    """How a tool knows the other services of the suite.

    A caller on a unix socket is believed: gRPC does not show the credentials of a
    peer, so the file system checks them, as the socket is 0600 in a directory
    that only its owner can change. Any other caller must show the service token.
    """

    def __init__(self, token: str = "") -> None:
        self._token = token.encode()

    async def authenticate(self, caller: Caller) -> Identity:
        metadata = caller.metadata
        if not caller.peer.startswith(_UNIX):
            shown = metadata.get(TOKEN_KEY, "").encode()
            if not self._token or not hmac.compare_digest(shown, self._token):
                raise Unauthenticated("no valid service token")
        return Identity(metadata.get(PRINCIPAL_KEY, ""), metadata.get(TENANT_KEY, ""), _SERVICE)
