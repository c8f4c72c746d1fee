"""One disagreement, and what mends it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that should not be."""

    kind: str
    """What it is, in a word; docs/operations.md lists all of them."""
    subject: str
    """Whose: a uid, a path below the state directory."""
    found: str
    mend: Callable[[], Awaitable[str]] | None = None
    """Does it, once the suite is stopped, and says what was done; None: only a backup helps."""
    remedy: str = ""
    """What to do where nothing mends it."""

    @property
    def key(self) -> tuple[str, str]:
        """The same thing has the same one when it is looked at again."""
        return self.kind, self.subject
