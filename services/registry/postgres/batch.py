"""What a group of writes does, decided in memory on what was read under the lock."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from services.registry.feed import Event
from services.registry.store import Key, Record, RequestId
from services.registry.written import Write, Written, event, replayed


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
    ) -> None:
        self.latest = latest
        self._now = now
        self._records = records
        self._answers = answers
        self._touched: dict[Key, None] = {}
        self._events: list[Event] = []
        self._requests: list[tuple[str, ...]] = []

    @property
    def empty(self) -> bool:
        """Whether there is nothing to keep."""
        return not self._events and not self._requests

    def run(self, write: Write) -> Written | Exception:
        """What the write comes to, or what it ends with; the others are not concerned."""
        try:
            return self._run(write)
        except Exception as error:  # Its caller gets it.
            return error

    def _run(self, write: Write) -> Written:
        key, change, request = write
        if request and (known := self._answers.get(request[:4])):
            return Written(replayed(request, *known), None)
        current = self._records.get(key)
        outcome = change(current, self.latest + 1)
        told = event(outcome, current, self.latest + 1)
        if told:
            self._keep(key, outcome.put, told)
        if request:
            self._answer(request, outcome.response)
        return Written(outcome.response, told)

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
        changes = [(each.revision, self._now, *each[1:]) for each in self._events]
        answers = [(*each, self._now, *self._answers[each]) for each in self._requests]
        return [
            *_columns(gone, 2),
            *_columns(put, len(Record._fields)),
            *_columns(changes, 6),
            *_columns(answers, 7),
            self.latest,
        ]


def _columns(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    return [[row[column] for row in rows] for column in range(width)]
