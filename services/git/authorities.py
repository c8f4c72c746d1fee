"""Which certificate authorities are trusted when a remote is talked to by TLS."""

import ssl
from pathlib import Path
from typing import Final

from servicekit.config import StartError

# Where systems keep theirs: Debian and Alpine, Fedora, SUSE, others.
_SYSTEM: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def read(path: Path | None) -> bytes:
    """Those of `path` and those of the system, in PEM; empty without `path`: git's own.

    Raises `StartError` when `path` holds none.
    """
    if path is None:
        return b""
    try:
        ssl.create_default_context(cafile=str(path))
        own = path.read_bytes()
    except (OSError, ssl.SSLError):
        raise StartError(f"no certificates can be read from {path}") from None
    bundles = (bundle for bundle in map(Path, _SYSTEM) if bundle.is_file())
    system = next((bundle.read_bytes() for bundle in bundles), b"")
    return system.rstrip() + b"\n" + own
