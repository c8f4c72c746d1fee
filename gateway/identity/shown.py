"""What a caller shows."""

from servicekit.identity import Caller


def bearer(caller: Caller) -> str:
    """The token in `authorization: Bearer <token>`; empty: none."""
    scheme, _, shown = caller.metadata.get("authorization", "").partition(" ")
    return shown.strip() if scheme.lower() == "bearer" else ""
