"""What a span is, and who takes it. Knows neither the call nor how spans are sent."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol, TypeAlias

Attributes: TypeAlias = Mapping[str, str | int]


class Kind(Enum):
    """What a span is of."""

    INTERNAL = auto()
    """Something within a call."""
    SERVER = auto()
    """A call, at who answers it."""


@dataclass(frozen=True, slots=True)
class Span:
    """What was done for a trace in one place. It holds no contents, and no secrets."""

    name: str
    kind: Kind
    traceparent: str
    """The trace, and this span in it."""

    parent: str
    """Hexadecimal, as in a `traceparent`; empty: it is the first of its trace."""

    began: int
    """Nanoseconds since 1970."""

    ended: int
    attributes: Attributes
    failed: str = ""
    """What went wrong, in one word; empty: nothing."""


class Recorder(Protocol):
    """Decides which traces are recorded, and takes their spans."""

    def begin(self, traceparent: str, *, given: bool) -> tuple[str, str, bool]:
        """A span of this trace: below that one if the caller has `given` it, else the first.

        Its traceparent, the id of its parent, and whether it is to be recorded.
        """
        ...

    def record(self, span: Span) -> None:
        """Never waits, and never fails."""
        ...
