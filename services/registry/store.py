"""Where environments are kept: the interface, and what goes through it.

A store knows nothing of the rules. It runs a `Change`, a pure function of what is
stored, and keeps what that returns, all in one transaction. An implementation on
another database has to do just that, under a lock.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol, TypeAlias

from servicekit.errors import ServiceError
from services.registry.feed import Event, Feed

if TYPE_CHECKING:  # They are made of what is here.
    from services.registry.quotas import Quotas
    from services.registry.tokens import Tokens
    from services.registry.trail import Entry, Trail

Clock: TypeAlias = Callable[[], int]
"""Nanoseconds since 1970. May jump in both directions."""


class Key(NamedTuple):
    """What an environment is found by."""

    tenant: str
    name: str


class Place(NamedTuple):
    """Where in a list a page ends."""

    tenant: str
    name: str
    time: int = 0
    """Of the column that the list is ordered by, if it is."""


@dataclass(frozen=True, slots=True)
class Order:
    """By a time and then by name, or by name alone; of all tenants by name alone."""

    time: Literal["", "create_time", "update_time"] = ""
    descending: bool = False
    """Of the time."""

    names_descending: bool = False


class Record(NamedTuple):
    """One environment as it is kept. `document` is its message; the rest is indexed."""

    tenant: str
    name: str
    uid: str
    state: int
    operation: int
    lease_start: int
    lease_end: int
    revision: int
    document: bytes
    create_time: int = 0
    update_time: int = 0
    counted: int = 1
    """Whether it counts as a workspace of its tenant's: 1 or 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a change decided. Without `put` and `remove` nothing is written."""

    response: bytes
    """Given to the caller, and again when the same request comes again."""

    put: Record | None = None
    remove: bool = False


Change: TypeAlias = Callable[[Record | None, int], Outcome]
"""Takes what is stored and the revision that its write will have. Runs in whatever thread
the store writes in, more than once where a transaction is begun anew, and touches nothing
else; what it raises is the caller's, and nothing is written."""


class Write(NamedTuple):
    """One of several writes."""

    key: Key
    change: Change


Answer: TypeAlias = Callable[[Sequence[bytes | ServiceError]], bytes]
"""Makes one response of what became of each of several writes."""


class RequestId(NamedTuple):
    """One request of one caller; `digest` tells whether a retry has the same content."""

    tenant: str
    principal: str
    rpc: str
    request_id: str
    digest: bytes


class Span(NamedTuple):
    """The history that is kept: revisions after `compacted`, up to `latest`."""

    compacted: int
    latest: int


class Page(NamedTuple):
    """A part of a list, and whether there is more of it."""

    records: list[Record]
    more: bool


BY_NAME: Final = Order()


class Snapshot(Protocol):
    """All environments at one revision."""

    @property
    def revision(self) -> int: ...

    async def page(self, after: Key | None) -> list[Record]:
        """The next records in the order of name and tenant, few where they are large; none at the
        end.

        Raises `WatcherTooSlow` when the snapshot was held for too long.
        """
        ...


class Store(Protocol):
    """Every implementation passes tests/registry/test_store.py.

    `tenant` None means all tenants.
    """

    @property
    def feed(self) -> Feed:
        """Every committed change, in order."""
        ...

    def now(self) -> int:
        """The one clock that leases go by, in nanoseconds. A `Change` asks it."""
        ...

    async def write(
        self,
        key: Key,
        change: Change,
        request: RequestId | None = None,
        entry: "Entry | None" = None,
    ) -> bytes:
        """Run the change on what `key` names; return its response once that is durable.

        If that changes something, the entry is in the audit log with it, unless its id is there.
        A request that was answered within the last 24 h is answered the same again.
        Raises `RequestIdReused` when its content is another, `DiskFull`, what `change`
        raises, and `DatabaseUnavailable`, after which it is not known whether it was done.
        """
        ...

    async def write_all(
        self,
        writes: Sequence[Write],
        answer: Answer,
        request: RequestId | None = None,
    ) -> bytes:
        """Run each change in this order, in one transaction; return what `answer` makes of all.

        One that raises a `ServiceError` writes nothing, and takes no other with it. Anything
        else that goes wrong undoes them all. Else as `write`.
        """
        ...

    async def get(self, key: Key) -> Record:
        """Raises `EnvironmentNotFound`."""
        ...

    async def exists(self, key: Key) -> bool: ...

    async def page(
        self,
        tenant: str | None,
        after: Place | None,
        *,
        states: Collection[int] = (),
        order: Order = BY_NAME,
        limit: int,
        max_bytes: int,
    ) -> Page:
        """The records after `after`, found by an index, whatever else there is.

        At most `limit`, and no more than `max_bytes` of documents, but always one
        when there is one. `states` are for one tenant's list by name; none means all.
        """
        ...

    async def span(self) -> Span: ...

    async def history(self, after: int, limit: int) -> list[Event]:
        """The changes after a revision, in order: `limit` at most, and fewer where they are large;
        none only at the end."""
        ...

    def snapshot(self, tenant: str | None) -> AbstractAsyncContextManager[Snapshot]: ...

    @property
    def quotas(self) -> "Quotas":
        """What tenants may have, beside what they have."""
        ...

    @property
    def trail(self) -> "Trail":
        """The audit log."""
        ...

    @property
    def tokens(self) -> "Tokens":
        """By what callers are known."""
        ...

    async def secret(self, name: str) -> bytes:
        """A key that is made once and never leaves the database."""
        ...

    @property
    def waiting(self) -> int:
        """Writes that wait for a commit."""
        ...

    async def census(self) -> Mapping[int, int]:
        """How many environments of all tenants there are of each state, those that have any."""
        ...

    async def sweep(self) -> int:
        """Throw away a bounded part of what is kept no longer. Returns how much that was."""
        ...
