"""In which tenant a known caller acts: its own, or the one that an operator names."""

from dataclasses import replace

from gateway.identity.names import TENANT
from servicekit.errors import InvalidArgument, PermissionDenied
from servicekit.identity import TENANT_KEY, Authenticator, Caller, Identity


class Acting:
    """Operators may name a tenant in the header `cove-tenant`. Whoever else does, and believes to
    act there, is refused."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def authenticate(self, caller: Caller) -> Identity:
        """Raises `PermissionDenied` and `InvalidArgument` for the tenant."""
        identity = await self._authenticator.authenticate(caller)
        asked = caller.metadata.get(TENANT_KEY, "")
        if asked in ("", identity.tenant):
            return identity
        if not identity.operator:
            raise PermissionDenied(
                "only an operator acts for another tenant",
                remedy="Leave out the header `cove-tenant`, or use a token of that tenant.",
            )
        if not TENANT.fullmatch(asked):
            raise InvalidArgument(TENANT_KEY, "not a DNS-1123 label")
        return replace(identity, tenant=asked)
