"""A write on its way through a store, and what came of it. The same for every database."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from servicekit.errors import ServiceError
from services.registry.errors import RequestIdReused
from services.registry.feed import Event
from services.registry.store import Answer, Outcome, Record, RequestId, Write
from services.registry.trail import Entry


class Job(NamedTuple):
    """What `Store.write` was asked for, or `Store.write_all`, which has an `answer`."""

    writes: Sequence[Write]
    request: RequestId | None = None
    answer: Answer | None = None
    entry: Entry | None = None
    """Of the audit log: kept with it, if it changes something."""


class Written(NamedTuple):
    """A job that is durable. Without events it changed nothing."""

    response: bytes
    events: Sequence[Event] = ()


def run(job: Job, apply: Callable[[Write], tuple[bytes, Event | None]]) -> Written:
    """Apply each of its writes, in order.

    Where there are several, one that is refused has that as its result. Anything else that
    it raises is raised: then nothing of the job may be kept.
    """
    results: list[bytes | ServiceError] = []
    events: list[Event] = []
    for write in job.writes:
        try:
            response, told = apply(write)
        except ServiceError as error:
            if job.answer is None:
                raise
            results.append(error)
            continue
        results.append(response)
        if told:
            events.append(told)
    if job.answer is None:
        return Written(response, events)
    return Written(job.answer(results), events)


def replayed(request: RequestId, digest: bytes, response: bytes) -> bytes:
    """The answer that the request had before. Raises `RequestIdReused`."""
    if digest != request.digest:
        raise RequestIdReused(
            "the request id was used for other content", request_id=request.request_id
        )
    return response


def event(outcome: Outcome, current: Record | None, revision: int) -> Event | None:
    """The change that the outcome is, if it is one."""
    previous, before = (current.revision, current.document) if current else (0, None)
    if put := outcome.put:
        return Event(revision, *put[:3], put.document, previous, before)
    if outcome.remove and current:
        return Event(revision, *current[:3], None, previous, before)
    return None
