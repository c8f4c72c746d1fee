"""Orders in the syntax of AIP-132: fields apart by commas, each with `desc` or without."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from cove.errors.v1.errors_pb2 import ErrorReason
from servicekit.errors import InvalidArgument

MAX_BYTES: Final = 256
_TERM: Final = re.compile(r"[ \t]*([A-Za-z0-9_.]+)(?:[ \t]+([A-Za-z]+))?[ \t]*")


class OrderInvalid(InvalidArgument):
    """Says what was found, and what is allowed."""

    reason = ErrorReason.ERROR_REASON_ORDER_INVALID

    def __init__(self, found: str, allowed: str) -> None:
        super().__init__(
            "order_by", f"found {found}, allowed: {allowed}", found=found, allowed=allowed
        )


@dataclass(frozen=True, slots=True)
class Term:
    """One field to order by."""

    field: str
    descending: bool = False


def parse_order(text: str, allowed: Collection[str]) -> tuple[Term, ...]:
    """None at all: the list's own order. Raises `OrderInvalid`."""
    if not text.strip(" \t"):
        return ()
    if len(text) > MAX_BYTES:
        raise OrderInvalid(f"{len(text)} characters", f"{MAX_BYTES} characters")
    terms = tuple(_term(part, allowed) for part in text.split(","))
    if len({term.field for term in terms}) < len(terms):
        raise OrderInvalid(text, "each field once")
    return terms


def _term(part: str, allowed: Collection[str]) -> Term:
    found = _TERM.fullmatch(part)
    if found is None or found[1] not in allowed:
        raise OrderInvalid(part.strip() or "nothing", ", ".join(sorted(allowed)))
    if found[2] not in (None, "asc", "desc"):
        raise OrderInvalid(part.strip(), f"{found[1]}, {found[1]} desc")
    return Term(found[1], found[2] == "desc")
