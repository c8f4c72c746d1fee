"""What a caller shows, and from where."""

from typing import Final

from servicekit.calls import SOURCE_KEY
from servicekit.identity import Caller

_UNIX: Final = "unix:"


def bearer(caller: Caller) -> str:
    """The token in `authorization: Bearer <token>`; empty: none."""
    scheme, _, shown = caller.metadata.get("authorization", "").partition(" ")
    return shown.strip() if scheme.lower() == "bearer" else ""


def host(caller: Caller) -> str:
    """The address that it calls from, without the port. HTTP's side speaks for others."""
    peer = caller.peer
    source = caller.metadata.get(SOURCE_KEY, peer) if peer.startswith(_UNIX) else peer
    return source.rpartition(":")[0]
