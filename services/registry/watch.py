"""Follows the changes: a snapshot or a place in the history first, then what comes."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias, TypeVar

from cove.registry.v1.registry_pb2 import Environment
from servicekit.filters.filters import Filter
from services.registry.errors import RevisionCompacted, RevisionInFuture
from services.registry.feed import Event
from services.registry.store import Key, Record, Span, Store

T = TypeVar("T")

_PAGE: Final = 256
_TURN: Final = 64


@dataclass(frozen=True, slots=True)
class Present:
    """An environment as the snapshot has it."""

    record: Record


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    revision: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Everything up to the revision was told."""

    revision: int


Told: TypeAlias = Present | SnapshotEnd | Event | Heartbeat


async def watch(
    store: Store,
    tenant: str | None,
    from_revision: int,
    heartbeat: timedelta,
    filter: Filter,  # noqa: A002 - the contract's word.
    *,
    changes_only: bool = False,
) -> AsyncGenerator[Told, None]:
    """Never ends by itself. `tenant` None means all, a `from_revision` of 0 a snapshot, which
    has nothing in it with `changes_only`.

    What a write takes out of the filter's selection is told as a removal: whether it was in it
    before is seen by what the write replaced, so that nothing has to be remembered, here or by
    one who resumes. Where that is not known any more, it is told to be safe. Holds one page at
    most, whatever the speed of the reader. Raises `RevisionCompacted`, `RevisionInFuture`,
    `WatcherTooSlow`.
    """
    selected = _Selection(tenant, filter)
    revision, life = from_revision, store.feed.life
    if revision:
        await _check(store, revision)
    elif changes_only:
        revision = (await store.span()).latest
        yield SnapshotEnd(revision)
    else:
        async with store.snapshot(tenant) as snapshot:
            revision = snapshot.revision
            after: Key | None = None
            while records := await snapshot.page(after):
                async for record in _in_turn(records):
                    if selected.has(record.document):
                        yield Present(record)
                after = Key(records[-1].tenant, records[-1].name)
        yield SnapshotEnd(revision)
    while not store.feed.holds(revision):
        events = await store.history(revision, _PAGE)
        if not events or events[0].revision != revision + 1:  # Swept meanwhile.
            raise _compacted(await store.span())
        async for event in _in_turn(events):
            revision = event.revision
            if (event_told := selected.told(event)) is not None:
                yield event_told
    told = time.monotonic()
    while True:
        wait = told + heartbeat.total_seconds() - time.monotonic()
        events = await store.feed.after(revision, max(0.0, wait), life)
        async for event in _in_turn(events):
            revision = event.revision
            if (event_told := selected.told(event)) is not None:
                yield event_told
                told = time.monotonic()
        if time.monotonic() - told >= heartbeat.total_seconds():
            yield Heartbeat(revision)
            told = time.monotonic()


class _Selection:
    """What of all that happens one watcher is told."""

    def __init__(self, tenant: str | None, filter: Filter) -> None:  # noqa: A002
        self._tenant = tenant
        self._filter = filter

    def has(self, document: bytes) -> bool:
        return not self._filter or self._filter.matches(Environment.FromString(document))

    def told(self, event: Event) -> Event | None:
        """The event, a removal for a write that takes it out, or None."""
        if self._tenant not in (None, event.tenant):
            return None
        if not self._filter or (event.document is not None and self.has(event.document)):
            return event
        if event.previous == 0:
            return None
        if event.before is not None and not self.has(event.before):
            return None
        return event._replace(document=None)


async def _in_turn(many: Sequence[T]) -> AsyncIterator[T]:
    """Each of them; to read and skip does not let others run, so they get their turn."""
    for number, each in enumerate(many, start=1):
        yield each
        if number % _TURN == 0:
            await asyncio.sleep(0)


async def _check(store: Store, revision: int) -> None:
    """Raises when what follows the revision is not kept, or it is not there yet."""
    span = await store.span()
    if revision < span.compacted:
        raise _compacted(span)
    if revision > span.latest:
        raise RevisionInFuture("there is no such revision yet", latest=str(span.latest))


def _compacted(span: Span) -> RevisionCompacted:
    return RevisionCompacted("that history is no longer kept", oldest=str(span.compacted))
