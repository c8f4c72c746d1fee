"""Names of branches, paths and the like: what may come from a caller."""

import re
from typing import Final

from services.git.errors import BranchInvalid

_REFUSED: Final = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)|^[-./]|[/.]$")
_LIMIT: Final = 240


def check_branch(name: str, field: str = "branch") -> str:
    """Return `name` if git allows a branch of that name. Raises `BranchInvalid`."""
    bad = not name or name in ("@", "HEAD") or name.startswith("refs/")
    try:
        too_long = len(name.encode()) > _LIMIT
    except UnicodeEncodeError:
        bad, too_long = True, False
    if bad or too_long or _REFUSED.search(name):
        raise BranchInvalid(field, "not a name that git allows for a branch", branch=name)
    return name
