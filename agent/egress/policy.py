"""What a sandbox may reach."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address, ip_network
from typing import Any, Final, Self

from agent.egress.addresses import Network, own, public
from agent.egress.names import Address, Host

ANY: Final = "*"
_MOST_RULES: Final = 256


class Match(Enum):
    """How a host and port are in a list. The value is said in logs and answers."""

    NO = "host_not_listed"
    OTHER_PORT = "port_not_listed"
    PUBLIC = "public"
    """Only as one of all public hosts."""
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class Rule:
    host: str
    """A name, an address, `*.` and a name for all below it, or `*` for every public host."""
    ports: tuple[int, ...]

    def covers(self, host: Host) -> bool:
        if self.host == ANY:
            return True
        if self.host.startswith("*."):
            return isinstance(host, str) and host.endswith(self.host[1:])
        return str(host) == self.host


@dataclass(frozen=True, slots=True)
class Policy:
    rules: tuple[Rule, ...] = ()
    networks: tuple[Network, ...] = ()
    """Addresses that are not public, and that hosts named in `rules` may have all the same."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises ValueError, KeyError or TypeError for what is none."""
        rules = tuple(_rule(str(each["host"]), each["ports"]) for each in data["rules"])
        if len(rules) > _MOST_RULES:
            raise ValueError("too many rules")
        return cls(rules, tuple(ip_network(each) for each in data["networks"]))

    def match(self, host: Host, port: int) -> Match:
        found = [each for each in self.rules if each.covers(host)]
        if not found:
            return Match.NO
        at_port = [each for each in found if port in each.ports]
        if not at_port:
            return Match.OTHER_PORT
        return Match.NAMED if any(each.host != ANY for each in at_port) else Match.PUBLIC

    def forbids(self, address: Address, match: Match) -> str:
        """Why a host that matched so may not have this address; empty: it may."""
        lent = match is Match.NAMED and any(
            address in each for each in self.networks if each.version == address.version
        )
        if lent:
            mine = not address.is_loopback and own(address)
            return "address_of_this_host" if mine else ""
        if not public(address):
            return "address_not_public"
        return "address_of_this_host" if own(address) else ""


def _rule(host: str, ports: list[int]) -> Rule:
    name = host.lower().removesuffix(".")
    if name.startswith("["):
        name = str(ip_address(name[1:-1]))
    return Rule(name, tuple(int(each) for each in ports))
