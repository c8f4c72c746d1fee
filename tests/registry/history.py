"""Whether a history of concurrent calls is one that could have happened one call after the other.

The algorithm of Wing and Gong ("Testing and verifying concurrent objects", 1993), with the memory
of Lowe ("Testing for linearizability", 2016), as in porcupine: look for an order of the calls that
respects who was over before whom, and in which each answer is the one that the model gives. A call
without an answer may have happened at any time after it began, or never.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

S = TypeVar("S", bound=Hashable)

NEVER: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `began` and `ended` are of one clock; without an answer it ends `NEVER`."""

    asked: Any
    answer: Any
    began: int
    ended: int

    @property
    def answered(self) -> bool:
        return self.ended != NEVER


@dataclass(frozen=True, slots=True)
class Verdict:
    """`stuck` are the calls of which none can be next, where the search came furthest."""

    linearizable: bool
    stuck: tuple[Call, ...] = ()


class _Search(Generic[S]):
    def __init__(self, step: Callable[[S, Call], Sequence[S]], calls: Sequence[Call]) -> None:
        self._step = step
        self._calls = sorted(calls, key=lambda call: call.began)
        self._all = sum(1 << at for at, call in enumerate(self._calls) if call.answered)
        self._known: set[tuple[int, S]] = set()

    def run(self, initial: S) -> Verdict:
        furthest = -1
        stuck: tuple[Call, ...] = ()
        paths: list[tuple[int, S]] = [(0, initial)]
        while paths:
            done, state = paths.pop()
            if done & self._all == self._all:
                return Verdict(True)
            candidates = self._candidates(done)
            if (answered := (done & self._all).bit_count()) > furthest:
                furthest = answered
                stuck = tuple(self._calls[at] for at in candidates)
            for at in reversed(candidates):
                for after in self._step(state, self._calls[at]):
                    path = done | 1 << at, after
                    if path not in self._known:
                        self._known.add(path)
                        paths.append(path)
        return Verdict(False, stuck)

    def _candidates(self, done: int) -> list[int]:
        """What may be next: whatever began before the first of the others was over."""
        found: list[int] = []
        first = NEVER
        for at, call in enumerate(self._calls):
            if call.began > first:
                break
            if not done >> at & 1:
                found.append(at)
                first = min(first, call.ended)
        # Who was answered first comes first, so that the search goes straight mostly.
        return sorted(found, key=lambda at: self._calls[at].ended)


def judge(step: Callable[[S, Call], Sequence[S]], initial: S, calls: Sequence[Call]) -> Verdict:
    """Whether there is an order. `step` gives the states after a call; none: a wrong answer."""
    return _Search(step, calls).run(initial)
