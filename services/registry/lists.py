"""Pages of environments: selected by a filter, in an order, for a bounded amount of work each."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from cove.registry.v1.registry_pb2 import Environment
from servicekit.filters.filters import Filter
from servicekit.filters.order import OrderInvalid, Term, parse_order
from services.registry.fields import ORDERS
from services.registry.store import BY_NAME, Order, Place, Record, Store

_MAX_BYTES: Final = 2 << 20
_SLICE: Final = 64
"""How many records are read, and compared, before others get their turn."""

_SCAN: Final = 2000
"""How many records a page looks at, at most."""

_STATES: Final = tuple(sorted(Environment.State.values()))


class Run(NamedTuple):
    """A part of a list that one index has in its order. No `states` means all."""

    states: Sequence[int]
    order: Order


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What is asked for. `tenant` None means all."""

    tenant: str | None
    filter: Filter
    states: frozenset[int]
    """Only these, unless it is empty."""

    order: tuple[Term, ...]

    def runs(self, after: Place | None) -> Iterator[Run]:
        """The parts, from that on which a page before ended in."""
        first, *rest = self.order or (Term("name"),)
        down = rest[0].descending if rest else first.descending
        if first.field in ("create_time", "update_time"):
            time: Order = replace(BY_NAME, time=first.field)  # type: ignore[arg-type]
            yield Run((), replace(time, descending=first.descending, names_descending=down))
            return
        by_name = Order(names_descending=down)
        if first.field == "name":
            yield Run(() if self.tenant is None else sorted(self.wanted or ()), by_name)
            return
        for state in sorted(self.wanted or _STATES, reverse=first.descending):
            begun = after is None or (
                state <= after.time if first.descending else state >= after.time
            )
            if begun:
                yield Run((state,), by_name)

    @property
    def wanted(self) -> frozenset[int]:
        """The states that can come at all, as far as that is known; empty: all of them."""
        told = self.filter.only("state")
        if told is None:
            return self.states
        only = frozenset(told) & self.states if self.states else frozenset(told)
        return only or frozenset({-1})

    def selects(self, record: Record) -> bool:
        if self.states and record.state not in self.states:
            return False
        return not self.filter or self.filter.matches(Environment.FromString(record.document))


class Listed(NamedTuple):
    """A page. `next` is where the one after it begins; None: there is none."""

    documents: list[bytes]
    next: Place | None


def listing_order(text: str, *, all_tenants: bool) -> tuple[Term, ...]:
    """Raises `OrderInvalid`."""
    order = parse_order(text, ORDERS)
    if order and all_tenants and (len(order) > 1 or order[0].field != "name"):
        raise OrderInvalid(text, "name, name desc, where all tenants are listed")
    if len(order) > 2 or (len(order) == 2 and order[1].field != "name"):
        raise OrderInvalid(text, "one field, and name behind it")
    if len(order) == 2 and order[0].field == "name":
        raise OrderInvalid(text, "nothing behind name")
    return order


async def page(store: Store, listing: Listing, after: Place | None, size: int) -> Listed:
    """At most `size` after a place; fewer where they are large, or few of many are selected."""
    taken = _Taken(size)
    last = after
    for run in listing.runs(after):
        by_state = len(run.states) == 1 and _by_state(listing)
        begin = after if after and (not by_state or after.time == run.states[0]) else None
        chosen = bool(listing.filter) or (bool(listing.states) and not run.states)
        while True:
            read = await store.page(
                listing.tenant,
                begin,
                states=run.states,
                order=run.order,
                limit=_SLICE if chosen else min(_SLICE, taken.left + 1),
                max_bytes=_MAX_BYTES,
            )
            for record in read.records:
                if listing.selects(record) and not taken.take(record.document):
                    return Listed(taken.documents, last)
                value = record.state if by_state else _time(record, run.order)
                begin = last = Place(record.tenant, record.name, value)
            if not read.more:
                break
            if taken.looked(len(read.records)):
                return Listed(taken.documents, last)
            await asyncio.sleep(0)  # Reading does not let others run.
    return Listed(taken.documents, None)


class _Taken:
    """What a page has so far."""

    def __init__(self, size: int) -> None:
        self.documents: list[bytes] = []
        self._size = size
        self._bytes = _MAX_BYTES
        self._scanned = 0

    @property
    def left(self) -> int:
        return self._size - len(self.documents)

    def take(self, document: bytes) -> bool:
        """False: it is for the next page."""
        self._bytes -= len(document)
        if self.documents and (self.left == 0 or self._bytes < 0):
            return False
        self.documents.append(document)
        return True

    def looked(self, count: int) -> bool:
        """At so many more. Whether that was enough for a page."""
        self._scanned += count
        return self._scanned >= _SCAN


def _by_state(listing: Listing) -> bool:
    return bool(listing.order) and listing.order[0].field == "state"


def _time(record: Record, order: Order) -> int:
    if not order.time:
        return 0
    value: int = getattr(record, order.time)
    return value
