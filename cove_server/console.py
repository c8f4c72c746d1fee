"""Where the web console is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from cove_server.errors import CannotStart

_ROOT: Final = Path(__file__).resolve().parent.parent
_PLACES: Final = (_ROOT / ".build" / "console", _ROOT / "gateway" / "console_files")
"""In a checkout; in a wheel, if it was there when that was made."""


def folder(env: Mapping[str, str], places: Sequence[Path] = _PLACES) -> Path:
    """Of COVE_GATEWAY__CONSOLE, else the first of `places` with one. Raises `CannotStart`."""
    if given := env.get("COVE_GATEWAY__CONSOLE"):
        return Path(given)
    for place in places:
        if (place / "index.html").is_file():
            return place
    raise CannotStart(
        "the web console is not built",
        "Run `make console` in a checkout; it needs Node.js 20.19 or newer with npm.",
    )
