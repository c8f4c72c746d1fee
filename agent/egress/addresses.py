"""Which addresses are the public internet's. Everything else is somebody's own."""

import socket
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, TypeAlias

from agent.egress.names import Address

Network: TypeAlias = IPv4Network | IPv6Network

_UNICAST: Final = IPv6Network("2000::/3")
_NOT_PUBLIC: Final[tuple[Network, ...]] = tuple(
    ip_network(each)
    for each in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # Shared by carriers; metadata of a cloud, too.
        "127.0.0.0/8",
        "168.63.129.16/32",  # Metadata of a cloud.
        "169.254.0.0/16",  # Link-local; metadata of most clouds.
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # Relays of 6to4.
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "2001::/23",  # Teredo, which embeds an IPv4 address, among others.
        "2001:db8::/32",
        "2002::/16",  # 6to4, which embeds an IPv4 address.
        "3fff::/20",
    )
)


def public(address: Address) -> bool:
    """Whether anybody may own it. No for all that embeds or maps another address."""
    if address.version == 6 and address not in _UNICAST:
        return False
    return not any(address in each for each in _NOT_PUBLIC if each.version == address.version)


def own(address: Address) -> bool:
    """Whether this host has it: what listens on it may think that only friends can connect."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))  # Sends nothing.
        except OSError:
            return False
        return bool(probe.getsockname()[0] == str(address))
