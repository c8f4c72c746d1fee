"""What tenants may have and have: the rules, and the interface of where that is kept."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple, Protocol, TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from cove.registry.v1 import access_pb2 as pb
from servicekit.quota import Limits, QuotaExceeded
from services.registry.errors import EtagMismatch, FieldImmutable
from services.registry.store import Outcome, Record, RequestId

UNLIMITED: Final = -1
LIMITS: Final = ("workspaces", "active_environments", "executions", "disk_bytes")
_ALL: Final = "limits"
_PREFIX: Final = "limits."
_RETRY: Final = timedelta(minutes=1)
"""Nobody knows when a workspace goes."""


class Quota(NamedTuple):
    """One tenant, as it is kept. Of the limits, 0 is the default and -1 none."""

    tenant: str
    counted: int = 0
    """Workspaces that it has."""
    workspaces: int = 0
    active_environments: int = 0
    executions: int = 0
    disk_bytes: int = 0
    version: int = 0
    update_time: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A tenant whose workspaces were counted wrong."""

    tenant: str
    counted: int
    found: int


QuotaChange: TypeAlias = Callable[[Quota, int], tuple[Quota, bytes]]
"""Takes what is stored, and the time; returns what to store, and the answer."""


class Quotas(Protocol):
    """Where they are kept, beside the environments."""

    async def get(self, tenant: str) -> Quota:
        """Of a tenant that has none, one without limits of its own."""
        ...

    async def update(
        self, tenant: str, change: QuotaChange, request: RequestId | None = None
    ) -> bytes:
        """As `Store.write`. The count stays what it is."""
        ...

    async def page(self, after: str, limit: int) -> list[Quota]:
        """In the order of tenants, after the one given."""
        ...

    async def recount(self, *, dry_run: bool) -> list[Correction]:
        """Compare what was counted with what there is, in one transaction, and correct it."""
        ...


def gained(current: Record | None, outcome: Outcome) -> int:
    """By how many the workspaces of a tenant grow: 1, 0, or -1."""
    before = current.counted if current else 0
    if outcome.put:
        return outcome.put.counted - before
    return -before if outcome.remove else 0


def admit(tenant: str, counted: int, limit: int, default: Limits) -> None:
    """Raises `QuotaExceeded` when `counted`, the new one among them, is more than it may have."""
    allowed = effective(limit, default.workspaces)
    if allowed and counted > allowed:
        raise QuotaExceeded(tenant, "workspaces", allowed, counted - 1, retry_after=_RETRY)


class Counts:
    """The workspaces of some tenants, while a group of writes is decided.

    `known` has of each tenant what was counted, and its own limit.
    """

    def __init__(self, known: dict[str, tuple[int, int]], default: Limits) -> None:
        self._known = known
        self._default = default
        self._changed: dict[str, None] = {}

    def add(self, current: Record | None, outcome: Outcome) -> None:
        """Count a write. Raises `QuotaExceeded`; then it is not counted."""
        by = gained(current, outcome)
        record = outcome.put or current
        if not by or record is None:
            return
        counted, limit = self._known.get(record.tenant, (0, 0))
        if by > 0:
            admit(record.tenant, counted + by, limit, self._default)
        self._known[record.tenant] = counted + by, limit
        self._changed[record.tenant] = None

    def copy(self) -> "Counts":
        made = Counts(dict(self._known), self._default)
        made._changed = dict(self._changed)
        return made

    def changed(self) -> list[tuple[str, int]]:
        """Tenants, and what is to be kept of them."""
        return [(tenant, self._known[tenant][0]) for tenant in self._changed]


def effective(limit: int, default: int) -> int:
    """The limit in force; 0 is none."""
    return 0 if limit == UNLIMITED else limit or default


def message(quota: Quota, default: Limits) -> pb.Quota:
    made = pb.Quota(
        tenant=quota.tenant,
        limits=pb.QuotaLimits(**{name: getattr(quota, name) for name in LIMITS}),
        effective_limits=pb.QuotaLimits(
            **{name: effective(getattr(quota, name), getattr(default, name)) for name in LIMITS}
        ),
        use=pb.QuotaUse(workspaces=quota.counted),
        etag=f"{quota.version:x}",
    )
    if quota.update_time:
        time = Timestamp()
        time.FromNanoseconds(quota.update_time)
        made.update_time.CopyFrom(time)
    return made


def updated(
    request: pb.UpdateQuotaRequest, default: Limits, quota: Quota, now: int
) -> tuple[Quota, bytes]:
    """The quota with the limits that the request names."""
    names: list[str] = []
    for path in request.update_mask.paths:
        name = path.removeprefix(_PREFIX)
        if path != _ALL and (name == path or name not in LIMITS):
            raise FieldImmutable(path)
        names += LIMITS if path == _ALL else [name]
    if request.quota.etag not in ("", f"{quota.version:x}"):
        raise EtagMismatch("changed since it was read", name=f"tenants/{quota.tenant}")
    limits = request.quota.limits
    wanted = quota._replace(**{name: getattr(limits, name) for name in names})
    if wanted != quota:
        wanted = wanted._replace(version=quota.version + 1, update_time=now)
    answer = pb.UpdateQuotaResponse(quota=message(wanted, default))
    return wanted, answer.SerializeToString()
