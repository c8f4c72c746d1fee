"""Who looks on while calls are made, and may stop one before its handler runs."""

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

from servicekit.calls import Call


class Witness(Protocol):
    """Looks on at one call."""

    def admitted(self, call: Call, request: Any) -> None:
        """The caller may make it. `request` is None where it is a stream, or wrong.

        What this raises is the caller's, and no handler runs.
        """
        ...

    def asked(self, request: Any) -> None:
        """A message of a stream of requests."""
        ...

    def answered(self, response: Any) -> None: ...

    def ended(self, call: Call, code: str, reason: str, seconds: float) -> None: ...


Witnesses: TypeAlias = Callable[[str], Callable[[], Witness]]
"""Who looks on at the calls of an RPC, by its path."""


class _Nobody:
    def admitted(self, call: Call, request: Any) -> None: ...

    def asked(self, request: Any) -> None: ...

    def answered(self, response: Any) -> None: ...

    def ended(self, call: Call, code: str, reason: str, seconds: float) -> None: ...


NOBODY: Final = _Nobody()


def nobody(_path: str) -> Callable[[], Witness]:
    return lambda: NOBODY
