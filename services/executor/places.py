"""Where executions are in a list: by their ids, or by when they were made."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple


class Place(NamedTuple):
    """Of one execution."""

    created_ns: int
    """0 where the list is by ids."""

    execution_id: str


@dataclass(frozen=True, slots=True)
class Order:
    """Of a list. Of those made in the same nanosecond the ids decide."""

    by_time: bool = False
    descending: bool = False

    def rest(self, places: Iterable[Place], after: str) -> list[Place]:
        """Those behind the place that `after` tells of, in order; all where that is empty."""
        found = sorted(places, reverse=self.descending)
        if not after:
            return found
        time, _, execution_id = after.rpartition(" ")
        begin = Place(int(time or 0), execution_id)
        return [each for each in found if (each < begin if self.descending else each > begin)]

    def told(self, place: Place) -> str:
        """As `rest` takes it."""
        return f"{place.created_ns} {place.execution_id}" if self.by_time else place.execution_id


BY_ID: Final = Order()
