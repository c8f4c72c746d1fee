"""What a group of writes does, decided in memory on what was read under the lock."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from services.registry.feed import Event
from services.registry.quotas import Counts
from services.registry.store import Key, Record, RequestId, Write
from services.registry.trail import Entry
from services.registry.written import Job, Written, event, replayed, run

_State: TypeAlias = tuple[int, dict[Key, Record], dict[Key, None], list[Event], Counts]


class Answer(NamedTuple):
    """What a request was answered, and by which content it is known again."""

    digest: bytes
    response: bytes


class Batch:
    """One write after the other, each on what those before it left.

    `records` and `answers` are what is stored of the keys and requests of the group.
    """

    def __init__(
        self,
        latest: int,
        now: int,
        records: dict[Key, Record],
        answers: dict[tuple[str, ...], Answer],
        counts: Counts,
    ) -> None:
        self._counts = counts
        self.latest = latest
        self._now = now
        self._records = records
        self._answers = answers
        self._touched: dict[Key, None] = {}
        self._events: list[Event] = []
        self._requests: list[tuple[str, ...]] = []
        self._entries: dict[str, Entry] = {}

    @property
    def empty(self) -> bool:
        """Whether there is nothing to keep."""
        return not self._events and not self._requests

    def run(self, job: Job) -> Written | Exception:
        """What the job comes to, or what it ends with; the others are not concerned."""
        before = self._state() if len(job.writes) > 1 else None
        try:
            return self._run(job)
        except Exception as error:  # Its caller gets it.
            if before:
                self._restore(before)
            return error

    def _run(self, job: Job) -> Written:
        request = job.request
        if request and (known := self._answers.get(request[:4])):
            return Written(replayed(request, *known))
        written = run(job, self._apply)
        if request:
            self._answer(request, written.response)
        if job.entry and written.events:
            self._entries[job.entry.id] = job.entry
        return written

    def _apply(self, write: Write) -> tuple[bytes, Event | None]:
        current = self._records.get(write.key)
        outcome = write.change(current, self.latest + 1)
        self._counts.add(current, outcome)
        told = event(outcome, current, self.latest + 1)
        if told:
            self._keep(write.key, outcome.put, told)
        return outcome.response, told

    def _state(self) -> _State:
        """What the writes of a job change; its answer is kept last, when nothing goes wrong."""
        return (
            self.latest,
            dict(self._records),
            dict(self._touched),
            list(self._events),
            self._counts.copy(),
        )

    def _restore(self, state: _State) -> None:
        self.latest, self._records, self._touched, self._events, self._counts = state

    def _keep(self, key: Key, put: Record | None, told: Event) -> None:
        if put:
            self._records[key] = put
        else:
            del self._records[key]
        self._touched[key] = None
        self._events.append(told)
        self.latest = told.revision

    def _answer(self, request: RequestId, response: bytes) -> None:
        self._answers[request[:4]] = Answer(request.digest, response)
        self._requests.append(request[:4])

    def parameters(self) -> list[Any]:
        """Of the statement that keeps it: the columns of what goes into each table."""
        put = [self._records[key] for key in self._touched if key in self._records]
        gone = [key for key in self._touched if key not in self._records]
        changes = [(each.revision, self._now, *each[1:6]) for each in self._events]
        answers = [(*each, self._now, *self._answers[each]) for each in self._requests]
        return [
            *_columns(gone, 2),
            *_columns(put, len(Record._fields)),
            *_columns(changes, 7),
            *_columns(answers, 7),
            *_columns(self._counts.changed(), 2),
            *_columns(list(self._entries.values()), len(Entry._fields)),
            self.latest,
        ]


def _columns(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    return [[row[column] for row in rows] for column in range(width)]
