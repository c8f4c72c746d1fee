"""What each client was told, and what it cannot know."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto


class Fate(Enum):
    """How a workspace is, as far as its client knows."""

    UNSURE = auto()
    """It asked for it, or for its end, and left before the answer."""
    THERE = auto()
    KEPT = auto()
    """Deleted, with unsaved work that can be brought back."""
    GONE = auto()


@dataclass(frozen=True, slots=True)
class Ended:
    """An execution whose end was told."""

    reason: str
    code: int
    stdout: bytes
    stderr: bytes
    whole: bool
    """Whether that is all that the command wrote."""


@dataclass(slots=True)
class Held:
    """One workspace of a client."""

    id: str
    fate: Fate = Fate.UNSURE
    uid: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    """Written, and told so."""
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    """Ids, the oldest first, and the files of which each must have that content."""
    asked: set[str] = field(default_factory=set)
    """Executions that were asked for."""
    ended: dict[str, Ended] = field(default_factory=dict)
    ran: set[str] = field(default_factory=set)
    """Marks of commands that ran to their end, here or in what this is a fork of: exactly once."""
    marks: set[str] = field(default_factory=set)
    """Marks of all that may have run: at most once."""


@dataclass(slots=True)
class Journal:
    """Of one client."""

    name: str
    held: list[Held] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    """What no caller should ever be told."""
    told: int = 0
    """Results that were acknowledged."""

    def alive(self) -> list[Held]:
        return [each for each in self.held if each.fate is Fate.THERE]


def of_all(journals: list[Journal], *fates: Fate) -> Iterator[Held]:
    """All workspaces, or those of some fates."""
    for journal in journals:
        yield from (each for each in journal.held if not fates or each.fate in fates)
