"""What gRPC's words for a failed handshake mean."""

from typing import Final

HTTPS: Final = "https://"
_TROUBLES: Final = (
    (
        "CERTIFICATE_VERIFY_FAILED",
        "the certificate of the gateway is of no authority that is trusted here, or has expired",
        "Name the file of its authority with COVE_CA_FILE.",
    ),
    (
        "Hostname Verification Check",
        "the certificate of the gateway is for another name",
        "Write the address with a name that is in its certificate.",
    ),
    (
        "WRONG_VERSION_NUMBER",
        "the gateway does not speak TLS",
        "Write its address without https://.",
    ),
    (
        "security handshaker",
        "the files for TLS cannot be used",
        "COVE_CA_FILE, COVE_CERTIFICATE_FILE and COVE_KEY_FILE name PEM files, the last the key of "
        "the one before.",
    ),
)
_CLOSED: Final = "Socket closed"


def explain(address: str, cause: str) -> tuple[str, str] | None:
    """A message and a remedy; None if it was no handshake that failed."""
    for word, message, remedy in _TROUBLES:
        if word in cause:
            return f"{message}: {address}", remedy
    if _CLOSED not in cause or address.startswith("unix:"):
        return None
    # Also of a gateway that was about to end: hence no more than a hint.
    remedy = "If it speaks TLS, write https:// before its address."
    if address.startswith(HTTPS):
        remedy = (
            "If it wants a certificate, name yours with COVE_CERTIFICATE_FILE and COVE_KEY_FILE."
        )
    return f"the gateway at {address} closes the connection", remedy
