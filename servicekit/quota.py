"""What a tenant may have: how a tool is told with a call, and how it refuses."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Final, Self

from cove.errors.v1.errors_pb2 import ErrorReason
from servicekit.errors import Quota, ResourceExhausted

LIMITS_KEY: Final = "cove-tenant-limits"
_LARGEST: Final = 2**63 - 1


class QuotaExceeded(ResourceExhausted):
    """The tenant has as much of `quota` as it may have."""

    reason = ErrorReason.ERROR_REASON_QUOTA_EXCEEDED

    def __init__(
        self,
        tenant: str,
        quota: str,
        limit: int,
        used: int,
        *,
        retry_after: timedelta | None = None,
    ) -> None:
        words = quota.replace("_", " ")
        super().__init__(
            f"the tenant may have {limit} {words}, and has {used}",
            retry_after=retry_after,
            quotas=[
                Quota(f"tenants/{tenant}", f"{used} {words} of {limit}", metric=quota, value=limit)
            ],
            quota=quota,
            limit=str(limit),
            used=str(used),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one tenant; 0 is no limit."""

    workspaces: int = 0
    active_environments: int = 0
    executions: int = 0
    disk_bytes: int = 0

    def header(self) -> str:
        """As it goes along with a call; empty when there is none."""
        return ",".join(f"{name}={value}" for name, value in asdict(self).items() if value)

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> Self:
        """Those that came with a call. What is not known here is left out."""
        known = {}
        for pair in metadata.get(LIMITS_KEY, "").split(","):
            name, _, value = pair.partition("=")
            if name in cls.__dataclass_fields__ and value.isascii() and value.isdigit():
                known[name] = min(int(value), _LARGEST)
        return cls(**known)


NONE: Final = Limits()
