"""How each reason is provoked: a table that tests fill, and run."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import pytest

from tests.errors.doors import Refusal
from tests.errors.world import Try

GRPC, HTTP, BEHIND = "grpc", "http", "behind"
"""Ways in; the last one is a service's own socket, which callers do not reach."""
BOTH: Final = (GRPC, HTTP)

Provoke: TypeAlias = Callable[[Try], Awaitable[Refusal]]


@dataclass(frozen=True, kw_only=True)
class Case:
    reason: str
    """Without `ERROR_REASON_`."""
    code: str
    """Of gRPC."""
    provoke: Provoke
    doors: tuple[str, ...] = BOTH
    long: bool = False
    root: bool = False
    """Whether it needs what root may."""

    @property
    def marks(self) -> list[pytest.MarkDecorator]:
        return [pytest.mark.long] if self.long else []


CASES: Final[dict[str, Case]] = {}


def provokes(
    reason: str, code: str, *, doors: tuple[str, ...] = BOTH, long: bool = False, root: bool = False
) -> Callable[[Provoke], Provoke]:
    """The function makes a call that is refused for this reason, with this code, at each door."""

    def add(provoke: Provoke) -> Provoke:
        assert reason not in CASES, f"{reason} is provoked twice"
        CASES[reason] = Case(
            reason=reason, code=code, provoke=provoke, doors=doors, long=long, root=root
        )
        return provoke

    return add
