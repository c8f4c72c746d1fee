"""What a page in a browser may not do, as the browser tells of it."""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from servicekit.errors import PermissionDenied
from servicekit.pages import is_of_another_site


def refuse_browsers(headers: Mapping[str, str]) -> None:
    """Raises `PermissionDenied` for another site's request, and for one whose name was rebound."""
    host = headers.get("host", "")
    if not _is_loopback(host) or is_of_another_site(headers):
        raise PermissionDenied("without a token, only local programs may call", host=host)


def refuse_other_sites(headers: Mapping[str, str]) -> None:
    """Raises `PermissionDenied`."""
    if is_of_another_site(headers):
        raise PermissionDenied(
            "by a certificate, no page of another site may call",
            remedy="Show a token: no browser does so by itself.",
        )


def _is_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
