"""Pages in browsers: what a browser tells of the one that asks."""

from collections.abc import Mapping
from urllib.parse import urlsplit


def is_of_another_site(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that a page of another site asks, as far as can be seen: a caller by
    gRPC, whose host is no header, has no page of its own. Nor has an origin that names no host,
    as `null` of a page that hides where it is."""
    origin = headers.get("origin")
    if origin is None:
        return False
    host = headers.get("host")
    try:
        return not host or urlsplit(origin).netloc != host
    except ValueError:
        return True
