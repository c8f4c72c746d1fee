"""Names of what is not there yet: a file or directory that is written beside its place.

Nobody is told of one: who lists, watches or packs its directory, or asks what has changed.
"""

import os
from typing import Final

_PREFIX: Final = b".cove-"
_DIGITS: Final = b"0123456789abcdef"
_COUNT: Final = 16

PATTERN: Final = _PREFIX + b"[0-9a-f]" * _COUNT
"""All of them, as git's lists of what to ignore have it."""


def new() -> bytes:
    """One that nobody has."""
    return _PREFIX + os.urandom(_COUNT // 2).hex().encode()


def is_draft(name: bytes) -> bool:
    """Whether it is one of these."""
    if len(name) != len(_PREFIX) + _COUNT or not name.startswith(_PREFIX):
        return False
    return not name[len(_PREFIX) :].strip(_DIGITS)
