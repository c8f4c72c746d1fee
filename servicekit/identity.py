"""Who calls: what a caller must show, and what is then known of it."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, Self

import grpc

from cove.options.v1.options_pb2 import Role
from servicekit.errors import Unauthenticated

PRINCIPAL_KEY: Final = "cove-principal"
TENANT_KEY: Final = "cove-tenant"
SOURCE_KEY: Final = "cove-source"
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

    workspace: str = ""
    """Id of the one workspace that a share reaches; empty: all of the tenant."""

    workspace_uid: str = ""
    """Its uid: another workspace that gets the id is not reached."""

    operator: bool = False
    """Whether it may act for other tenants."""


class Caller(NamedTuple):
    """What is seen of a caller before it is known who it is."""

    metadata: Mapping[str, str]
    """Headers by lower-case name."""

    peer: str
    """As gRPC names it, for example `unix:` or `ipv4:1.2.3.4:5`."""

    certificate: tuple[str, ...] = ()
    """URIs (SPIFFE ids) in the certificate that the peer showed and TLS has verified."""

    @property
    def source(self) -> str:
        """From where it calls, as gRPC names peers. Whoever reaches a unix socket is of the suite,
        and may speak for another, as HTTP's side does."""
        if self.peer.startswith(_UNIX):
            return self.metadata.get(SOURCE_KEY, self.peer)
        return self.peer

    @property
    def spiffe_id(self) -> str:
        """The name in the certificate. Empty where there is none, or not exactly one: SPIFFE
        allows one."""
        return self.certificate[0] if len(self.certificate) == 1 else ""

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
    that only its owner can change. Any other caller must show the service token where there is
    one, and a certificate of one of `peers`, SPIFFE ids, where there are some.
    """

    def __init__(self, token: str = "", peers: Sequence[str] = ()) -> None:
        self._token = token.encode()
        self._peers = frozenset(peers)

    async def authenticate(self, caller: Caller) -> Identity:
        metadata = caller.metadata
        if not caller.peer.startswith(_UNIX):
            self._check(caller)
        return Identity(metadata.get(PRINCIPAL_KEY, ""), metadata.get(TENANT_KEY, ""), _SERVICE)

    def _check(self, caller: Caller) -> None:
        if self._peers and caller.spiffe_id not in self._peers:
            raise Unauthenticated("no certificate of a known caller")
        shown = caller.metadata.get(TOKEN_KEY, "").encode()
        if self._token and not hmac.compare_digest(shown, self._token):
            raise Unauthenticated("no valid service token")
        if not self._token and not self._peers:
            raise Unauthenticated("no caller over TCP is known here")
