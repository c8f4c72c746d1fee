"""What docs/errors.md promises of each reason, read as a person would."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Final

from scripts.gen_docs import ERRORS

_ROW: Final = re.compile(r"\| `(?P<name>[A-Z_]+)` \| (?P<rest>.*) \|")
_CODE: Final = re.compile(r"(?P<code>[A-Z_]+) (?P<http>\d{3})")
_KEY: Final = re.compile(r"`([a-z][a-z0-9_]*)`")
_BESIDE: Final = frozenset({"step", "entry", "placed"})
"""What failures of what makes a workspace, and of what unpacks, have beside all that."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A row of the page."""

    told: str
    http: dict[str, int]
    """Status of HTTP by code."""
    cause: str
    always: frozenset[str]
    maybe: frozenset[str]
    remedy: str
    again: str

    @property
    def keys(self) -> frozenset[str]:
        """All that its metadata may have."""
        return self.always | self.maybe | _BESIDE


@cache
def promises() -> dict[str, Promise]:
    """By reason."""
    found = {}
    for line in ERRORS.read_text().splitlines():
        if row := _ROW.fullmatch(line):
            told, cause, metadata, remedy, again = map(str.strip, row["rest"].split(" | "))
            always, _, maybe = metadata.partition("at times")
            found[row["name"]] = Promise(
                told,
                {each["code"]: int(each["http"]) for each in _CODE.finditer(told)},
                cause,
                frozenset(_KEY.findall(always)),
                frozenset(_KEY.findall(maybe)),
                remedy,
                again,
            )
    return found
