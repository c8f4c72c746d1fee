"""One spelling for each host. What can be read in two ways is no name here."""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Host: TypeAlias = str | IPv4Address | IPv6Address
"""A name in lower case without the last dot, or an address."""

_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LONGEST: Final = 253


class AmbiguousError(ValueError):
    """It is no host, or one that somebody may read otherwise."""


def canonical(text: str) -> Host:
    """The host that `text`, as in a URL, names. Raises AmbiguousError.

    Percent signs and letters beyond ASCII are refused: whoever asks writes xn--. So is every
    number that is no address in four plain decimal parts, such as 0x7f.1 or 010.0.0.1.
    """
    if text.startswith("["):
        return _literal(text)
    name = text.removesuffix(".").lower() if text.isascii() else ""
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return IPv4Address(text)
        except AddressValueError:
            raise AmbiguousError("a number that is no plain IPv4 address") from None
    if len(name) > _LONGEST or not all(map(_LABEL.fullmatch, labels)):
        raise AmbiguousError("not a host name")
    return name


def _literal(text: str) -> IPv6Address:
    if not text.endswith("]") or "%" in text:
        raise AmbiguousError("not an IPv6 address")
    try:
        return IPv6Address(text[1:-1])
    except AddressValueError:
        raise AmbiguousError("not an IPv6 address") from None


def port_of(text: str) -> int:
    """A port in decimal. Raises AmbiguousError."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and not text.startswith("0")):
        raise AmbiguousError("not a port")
    if int(text) > 65535:
        raise AmbiguousError("not a port")
    return int(text)


def split_authority(text: str) -> tuple[str, str]:
    """Host and port of an authority; the port is empty where there is none."""
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if rest and not rest.startswith(":"):
            raise AmbiguousError("not a host and a port")
        return host + bracket, rest[1:]
    host, colon, port = text.partition(":")
    if ":" in port or (colon and not port):
        raise AmbiguousError("not a host and a port")
    return host, port


def shown(host: Host) -> str:
    """As in a URL."""
    return f"[{host}]" if isinstance(host, IPv6Address) else str(host)
