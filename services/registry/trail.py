"""The audit log: what is asked of it, and the interface of where it is kept."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from cove.registry.v1.audit_pb2 import AuditEntry

LOOKED_AT: Final = 5000
"""Entries that one page looks at, at most."""
_LAST: Final = 2**63 - 1


class Entry(NamedTuple):
    """One entry, as it is kept. `document` is its message; the rest is searched by."""

    id: str
    tenant: str
    time: int
    principal: str
    action: str
    resource: str
    code: str
    document: bytes

    @classmethod
    def of(cls, entry: AuditEntry) -> "Entry":
        """Whatever is in it: an entry that no column takes would hold up all after it."""
        return cls(
            id=_text(entry.id.lower()),
            tenant=_text(entry.tenant),
            time=moment(entry.time),
            principal=_text(entry.principal),
            action=_text(entry.action),
            resource=_text(entry.resource),
            code=_text(entry.code),
            document=entry.SerializeToString(),
        )


def moment(time: Timestamp) -> int:
    """In nanoseconds since 1970, as far as a column can tell: from 1970 to 2262."""
    return min(max(0, time.ToNanoseconds()), _LAST)


def _text(text: str) -> str:
    """PostgreSQL keeps no NUL."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


UNKNOWN: Final = "UNKNOWN"
"""How something ended of which is known only that it began."""

TOLD: Final = (
    "ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(f"{column} = excluded.{column}" for column in Entry._fields if column != "time")
    + f" WHERE audit.code = '{UNKNOWN}' AND excluded.code <> '{UNKNOWN}'"
)
"""In SQL: an entry that is here is left as it is, unless only its beginning was known. Then it
keeps its place in the list, so that pages hold still."""


def each_once(entries: Iterable[Entry]) -> list[Entry]:
    """Of several with one id the first that tells how it ended, else the first."""
    kept: dict[str, Entry] = {}
    for entry in entries:
        before = kept.get(entry.id)
        if before is None or (before.code == UNKNOWN and entry.code != UNKNOWN):
            kept[entry.id] = entry
    return list(kept.values())


class Place(NamedTuple):
    """Of an entry in the list: pages begin below one."""

    time: int
    id: str


class Removed(NamedTuple):
    """What was removed of a tenant's as it was too old: as many `entries` of before `until`."""

    until: int = 0
    """0: none ever were."""
    entries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which entries of a tenant. What is empty, or 0, does not matter."""

    tenant: str
    start: int = 0
    end: int = 0
    principal: str = ""
    resource: str = ""
    action: str = ""
    code: str = ""

    @property
    def selects(self) -> bool:
        """Whether entries of the tenant and the time may be left out."""
        return bool(self.principal or self.resource or self.action or self.code)

    def has(self, entry: Entry) -> bool:
        """Whether it is one of these; tenant and time have been looked at."""
        return (
            self.principal in ("", entry.principal)
            and self.code in ("", entry.code)
            and (not self.action or f".{entry.action}".endswith(f".{self.action}"))
            and (not self.resource or f"{entry.resource}/".startswith(f"{self.resource}/"))
        )


class Found(NamedTuple):
    """A part of a list; `more` is where the next one begins."""

    entries: list[Entry]
    more: Place | None


def found(rows: Iterable[Entry], wanted: Wanted, limit: int) -> Found:
    """Those among `rows` that are wanted; they come in order, one more than is looked at."""
    entries: list[Entry] = []
    last: Place | None = None
    for looked_at, entry in enumerate(rows):
        if last and (looked_at == LOOKED_AT or len(entries) == limit):
            return Found(entries, last)
        last = Place(entry.time, entry.id)
        if wanted.has(entry):
            entries.append(entry)
    return Found(entries, None)


class Trail(Protocol):
    """Where entries are kept."""

    async def append(self, entries: Sequence[Entry]) -> int:
        """Keep those whose id is not here yet, or with `UNKNOWN` only, in the place of which
        comes how it ended. Each has an id of its own. Returns how many, once they are durable."""
        ...

    async def page(self, wanted: Wanted, below: Place | None, limit: int) -> Found:
        """The latest first. Looks at a bounded number, so it may find few though there are more."""
        ...

    async def removed(self, tenant: str) -> Removed: ...
