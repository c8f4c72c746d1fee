"""Finds the gateway: in the environment, or in what `cove up` left in its state directory."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cove import secure, status
from cove.secure import Tls

FILE: Final = "endpoint.json"
"""What `cove up` writes into its state directory while it runs."""

DEFAULT_ADDRESS: Final = "127.0.0.1:7420"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a gateway is, and what it wants to be shown."""

    address: str
    """`host:port`, `https://host:port` or `unix:/path`."""

    token: str = field(default="", repr=False)

    tenant: str = ""
    """In which an operator acts; empty: the caller's own."""
    tls: Tls | None = field(default=None, repr=False)
    """None: without."""

    services: Mapping[str, str] = field(default_factory=dict)
    """Addresses of the services behind it, where this user can reach them."""


def find(
    env: Mapping[str, str],
    *,
    address: str | None = None,
    token: str | None = None,
    state: Path | None = None,
    tenant: str | None = None,
) -> Endpoint:
    """What is given wins, then COVE_ADDRESS, COVE_TOKEN and COVE_TENANT, then the state directory.

    The token of the state directory is sent to the gateway of that directory only. An address
    with `https://` is spoken to over TLS, as COVE_CA_FILE, COVE_CERTIFICATE_FILE and
    COVE_KEY_FILE say. Raises `Unavailable` when a state directory is named and no suite runs on
    it, and `InvalidArgument` when those files cannot be used.
    """
    given = address or env.get("COVE_ADDRESS") or ""
    address = given or None
    token = token if token is not None else env.get("COVE_TOKEN")
    token = token.strip() if token is not None else None  # A line end cannot be sent.
    left = _left(state or state_directory(env))
    if address is None:
        # Whoever names a state directory means its gateway, and no other.
        if not left and (state or env.get("COVE_STATE")):
            raise status.Unavailable(
                "no suite runs on the state directory",
                metadata={"state": str(state or env["COVE_STATE"])},
                remedy="Start it there with `cove up`, or set COVE_ADDRESS and COVE_TOKEN.",
            )
        address = left.get("grpc") or DEFAULT_ADDRESS
    ours = address == left.get("grpc")
    if token is None:
        token = _read(Path(left["token_file"])) if ours and left.get("token_file") else ""
    return Endpoint(
        address=address,
        token=token,
        tenant=tenant if tenant is not None else env.get("COVE_TENANT", ""),
        tls=_tls(env, address, given=bool(given)),
        services=left.get("services", {}) if ours else {},
    )


def _tls(env: Mapping[str, str], address: str, *, given: bool) -> Tls | None:
    if secure.is_secure(address):
        return Tls.of(env)
    if given and secure.wanted(env) and not address.startswith("unix:"):
        # A token is not to go in the clear where somebody meant TLS.
        raise status.InvalidArgument(
            "the address is one without TLS, and files for TLS are named",
            metadata={"address": address},
            remedy=f"Write https://{secure.target(address)}, or unset COVE_CA_FILE, "
            "COVE_CERTIFICATE_FILE and COVE_KEY_FILE.",
        )
    return None


def state_directory(env: Mapping[str, str]) -> Path:
    """Where Cove keeps everything unless it is told otherwise."""
    if given := env.get("COVE_STATE"):
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/lib/cove")
    base = env.get("XDG_STATE_HOME") or f"{env.get('HOME', '')}/.local/state"
    return Path(base) / "cove"


def _left(state: Path) -> dict[str, Any]:
    try:
        left = json.loads((state / FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return left if isinstance(left, dict) else {}


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
