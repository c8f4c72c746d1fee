"""Requests that wait until the git inside has followed, and those that are about them."""

from agent import frames
from agent.inside.connection import Connection

_LONGEST = 3.0
"""Seconds that one waits at most."""
_MOST = 256

_STARTS = (
    *(frames.START, frames.START_SECRETLY, frames.START_OPEN, frames.START_OPEN_SECRETLY),
    *(frames.RUN, frames.RUN_SECRETLY),
)
_PLACES = {
    **dict.fromkeys((*_STARTS, frames.SIGNAL, frames.CANCEL, frames.EXCEEDED), 0),
    **dict.fromkeys((frames.WRITE, frames.INPUT, frames.RELEASE, frames.RESIZE), 0),
    **dict.fromkeys((frames.RUN, frames.RUN_SECRETLY), 1),
}
"""In which field of a request the execution is."""

Request = tuple[Connection, int, int, bytes, list[int]]
"""Connection, kind, number, payload, descriptors."""


def starts(kind: int) -> bool:
    return kind in _STARTS


def subject(kind: int, payload: bytes) -> bytes:
    """The execution that a request is about; empty when it is about none, or malformed."""
    try:
        return frames.unpack(payload)[_PLACES[kind]]
    except (KeyError, ValueError, IndexError):
        return b""


class Held:
    """In the order they came. Time is monotonic seconds, passed in."""

    def __init__(self) -> None:
        self._all: list[tuple[float, bytes, Request]] = []

    def has(self, execution_id: bytes) -> bool:
        return any(each == execution_id for _, each, _ in self._all)

    def add(self, execution_id: bytes, request: Request, now: float) -> bool:
        """Takes the descriptors over; false when there are too many."""
        if len(self._all) >= _MOST:
            return False
        client, kind, number, payload, descriptors = request
        kept = client, kind, number, payload, list(descriptors)
        self._all.append((now + _LONGEST, execution_id, kept))
        descriptors.clear()
        return True

    def due(self, now: float, *, busy: bool) -> list[Request]:
        """Those that wait no longer: all, unless the follower is `busy`."""
        due = [each for each in self._all if not busy or now >= each[0]]
        self._all = [each for each in self._all if each not in due]
        return [request for _, _, request in due]

    def deadline(self) -> float:
        """When the first one is due at the latest; 0 is never."""
        return self._all[0][0] if self._all else 0.0
