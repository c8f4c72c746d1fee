"""The names under which callers are known, whatever an issuer calls them."""

import hashlib
import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import quote

from cove.options.v1.options_pb2 import Role


class Rights(NamedTuple):
    """What somebody may; the highest is the most."""

    role: Role.ValueType
    operator: bool = False
    """Whether for other tenants, too."""


ROLES: Final[Mapping[str, Rights]] = {
    "reader": Rights(Role.ROLE_READER),
    "writer": Rights(Role.ROLE_WRITER),
    "admin": Rights(Role.ROLE_ADMIN),
}
"""By the words that an issuer of tokens may use, too."""
RIGHTS: Final[Mapping[str, Rights]] = {
    **ROLES,
    "operator": Rights(Role.ROLE_ADMIN, operator=True),
}
"""By the words of who configures the gateway: nobody else makes an operator."""
TENANT: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")
_LONGEST: Final = 128
_DIGITS: Final = 32


def principal(name: str) -> str:
    """At most 128 characters that a header can have; other names never become the same one."""
    name = quote(name, safe=_PRINTABLE)
    if len(name) < _LONGEST:  # What was shortened has just that length, and nothing else has.
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]
    return f"{name[: _LONGEST - _DIGITS - 1]}~{digest}"
