"""Proxies that say who calls: what they saw of a caller counts as if it had been seen here."""

import ipaddress
from collections.abc import Collection
from typing import Final

from servicekit.identity import Caller
from servicekit.pages import is_of_another_site

FOR_KEY: Final = "x-forwarded-for"
CERTIFICATE_KEY: Final = "x-forwarded-client-cert"


class Proxies:
    """Those whose certificate has one of these SPIFFE ids. From all others both headers mean
    nothing: anybody can write them."""

    def __init__(self, ids: Collection[str] = ()) -> None:
        self._ids = frozenset(ids)

    def behind(self, caller: Caller) -> Caller:
        """Who calls, where it is one of them that passes the call on. Its own certificate is then
        never the caller's."""
        if not self._ids or caller.spiffe_id not in self._ids:
            return caller
        metadata = caller.metadata
        peer = _peer(metadata.get(FOR_KEY, "")) or caller.peer
        if is_of_another_site(metadata):  # Browsers show certificates by themselves.
            return Caller(metadata, peer, ())
        return Caller(metadata, peer, _uris(metadata.get(CERTIFICATE_KEY, "")))


NO_PROXIES: Final = Proxies()


def _peer(forwarded: str) -> str:
    """The last entry, which is what the proxy itself saw, as gRPC names peers; empty: none."""
    last = forwarded.rpartition(",")[2].strip()
    try:
        address = ipaddress.ip_address(last)
    except ValueError:
        return ""
    return f"ipv6:[{address}]:0" if address.version == 6 else f"ipv4:{address}:0"


def _uris(shown: str) -> tuple[str, ...]:
    """Those of the certificate. None where several are told of, or anything has to be quoted: a
    SPIFFE id has nothing that would have to be."""
    if "," in shown or '"' in shown:
        return ()
    pairs = (each.partition("=") for each in shown.split(";"))
    return tuple(value for key, _, value in pairs if key.lower() == "uri" and value)
