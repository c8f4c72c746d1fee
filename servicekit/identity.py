"""Who calls: what a caller must show, and what is then known of it."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from cove.options.v1.options_pb2 import Role
from servicekit.errors import Unauthenticated

PRINCIPAL_KEY: Final = "cove-principal"
TENANT_KEY: Final = "cove-tenant"
_SERVICE: Final = Role.ROLE_SERVICE
TOKEN_KEY: Final = "cove-service-token"  # noqa: S105 - the name of a header, not a secret.


@dataclass(frozen=True, slots=True)
class Identity:
    """A known caller. An empty tenant: the suite itself acts, for no tenant."""

    principal: str
    tenant: str
    role: Role.ValueType


class Authenticator(Protocol):
    """Decides who a caller is."""

    async def authenticate(self, metadata: Mapping[str, str], peer: str) -> Identity:
        """Raises `Unauthenticated`. `peer` is gRPC's, for example `unix:` or `ipv4:1.2.3.4:5`."""
        ...


class ServiceAuthenticator:
    """How a tool knows the other services of the suite.

    A caller on a unix socket is believed: gRPC does not show the credentials of a
    peer, so the file system checks them, as the socket is 0600 in a directory
    that only its owner can change. Any other caller must show the service token.
    """

    def __init__(self, token: str = "") -> None:
        self._token = token.encode()

    async def authenticate(self, metadata: Mapping[str, str], peer: str) -> Identity:
        if not peer.startswith("unix:"):
            shown = metadata.get(TOKEN_KEY, "").encode()
            if not self._token or not hmac.compare_digest(shown, self._token):
                raise Unauthenticated("no valid service token")
        return Identity(metadata.get(PRINCIPAL_KEY, ""), metadata.get(TENANT_KEY, ""), _SERVICE)
