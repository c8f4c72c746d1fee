"""The clock by which it is decided what is due."""

from datetime import UTC, datetime, timedelta
from typing import Final

from gateway.clock import Clock

BEGAN: Final = datetime(2026, 1, 1, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)


class Hands:
    """Of a wall clock, and of one that nobody sets."""

    def __init__(self) -> None:
        self.wall = BEGAN
        self.elapsed = timedelta(0)
        self.clock = Clock(lambda: self.wall.timestamp(), self.elapsed_seconds)

    def elapsed_seconds(self) -> float:
        return self.elapsed.total_seconds()

    def pass_(self, by: timedelta) -> datetime:
        self.wall += by
        self.elapsed += by
        return self.clock.now()

    def set(self, by: timedelta) -> datetime:
        self.wall += by
        return self.clock.now()


def test_it_goes_as_the_wall_clock_does() -> None:
    hands = Hands()
    for _ in range(100):
        assert hands.pass_(HOUR) == hands.wall
    assert hands.set(timedelta(seconds=30)) == hands.wall
    assert hands.pass_(HOUR) == hands.wall == hands.clock.latest()


def test_a_jump_forward_counts_when_it_has_lasted() -> None:
    hands = Hands()
    assert hands.set(3 * DAY) == BEGAN
    assert hands.clock.latest() == BEGAN + 3 * DAY
    assert hands.pass_(HOUR / 2) == BEGAN + HOUR / 2
    assert hands.set(DAY) == BEGAN + HOUR / 2
    assert hands.pass_(HOUR / 2) == hands.wall == BEGAN + 4 * DAY + HOUR


def test_a_jump_forward_that_is_taken_back_has_never_been() -> None:
    hands = Hands()
    hands.set(3 * DAY)
    hands.pass_(HOUR / 2)
    assert hands.set(-3 * DAY) == BEGAN + HOUR / 2
    assert hands.pass_(HOUR) == hands.wall
    assert hands.set(DAY) == hands.wall - DAY  # Another one is doubted anew.


def test_one_that_is_set_back_is_believed() -> None:
    hands = Hands()
    assert hands.set(-DAY) == BEGAN - DAY
    assert hands.pass_(HOUR) == BEGAN - DAY + HOUR
