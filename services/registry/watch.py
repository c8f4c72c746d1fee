"""Follows the changes: a snapshot or a place in the history first, then what comes."""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

from services.registry.errors import RevisionCompacted, RevisionInFuture
from services.registry.feed import Event
from services.registry.store import Key, Record, Span, Store

_PAGE: Final = 256


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
    store: Store, tenant: str | None, from_revision: int, heartbeat: timedelta
) -> AsyncGenerator[Told, None]:
    """Never ends by itself. `tenant` None means all, a `from_revision` of 0 a snapshot.

    Holds one page at most, whatever the speed of the reader. Raises
    `RevisionCompacted`, `RevisionInFuture`, `WatcherTooSlow`.
    """
    revision = from_revision
    if revision:
        await _check(store, revision)
    else:
        async with store.snapshot(tenant) as snapshot:
            revision = snapshot.revision
            after: Key | None = None
            while records := await snapshot.page(after):
                for record in records:
                    yield Present(record)
                after = Key(records[-1].tenant, records[-1].name)
        yield SnapshotEnd(revision)
    while not store.feed.holds(revision):
        await asyncio.sleep(
            0
        )  # Reading does not let others run; what is skipped below may be much.
        events = await store.history(revision, _PAGE)
        if not events or events[0].revision != revision + 1:  # Swept meanwhile.
            raise _compacted(await store.span())
        for event in events:
            revision = event.revision
            if tenant in (None, event.tenant):
                yield event
    told = time.monotonic()
    while True:
        wait = told + heartbeat.total_seconds() - time.monotonic()
        events = await store.feed.after(revision, max(0.0, wait))
        for event in events:
            revision = event.revision
            if tenant in (None, event.tenant):
                yield event
                told = time.monotonic()
        if time.monotonic() - told >= heartbeat.total_seconds():
            yield Heartbeat(revision)
            told = time.monotonic()


async def _check(store: Store, revision: int) -> None:
    """Raises when what follows the revision is not kept, or it is not there yet."""
    span = await store.span()
    if revision < span.compacted:
        raise _compacted(span)
    if revision > span.latest:
        raise RevisionInFuture("there is no such revision yet", latest=str(span.latest))


def _compacted(span: Span) -> RevisionCompacted:
    return RevisionCompacted("that history is no longer kept", oldest=str(span.compacted))
