"""A write on its way through a store, and what came of it. The same for every database."""

from typing import NamedTuple

from services.registry.errors import RequestIdReused
from services.registry.feed import Event
from services.registry.store import Change, Key, Outcome, Record, RequestId


class Write(NamedTuple):
    """What `Store.write` was asked for."""

    key: Key
    change: Change
    request: RequestId | None


class Written(NamedTuple):
    """A write that is durable. Without an event it changed nothing."""

    response: bytes
    event: Event | None


def replayed(request: RequestId, digest: bytes, response: bytes) -> bytes:
    """The answer that the request had before. Raises `RequestIdReused`."""
    if digest != request.digest:
        raise RequestIdReused(
            "the request id was used for other content", request_id=request.request_id
        )
    return response


def event(outcome: Outcome, current: Record | None, revision: int) -> Event | None:
    """The change that the outcome is, if it is one."""
    if put := outcome.put:
        return Event(revision, put.tenant, put.name, put.uid, put.document)
    if outcome.remove and current:
        return Event(revision, current.tenant, current.name, current.uid, None)
    return None
