"""What a workspace may reach, written as one writes hosts."""

from collections.abc import Iterable
from typing import Final

from cove.registry.v1.registry_pb2 import Network

_HTTPS: Final = 443


def network(hosts: Iterable[str]) -> Network:
    """A list of `HOST[:PORT[,PORT...]]`; port 443 where none is named.

    A host is a name, `*.` and a name for all names below it, an address, an IPv6 one in brackets,
    or `*` for every public host. Raises ValueError for a port that is none.
    """
    return Network(allow=[_rule(each) for each in hosts])


def given(hosts: Iterable[str]) -> Network | None:
    """As `network`; None where nothing is listed."""
    made = network(hosts)
    return made if made.allow else None


def written(allowed: Network) -> list[str]:
    """The list that `network` makes this of."""
    return [f"{rule.host}:{','.join(str(port) for port in rule.ports)}" for rule in allowed.allow]


def _rule(text: str) -> Network.Rule:
    host, bracket, rest = text.rpartition("]") if text.startswith("[") else ("", "", text)
    name, colon, ports = rest.partition(":")
    if not colon:
        return Network.Rule(host=host + bracket + name, ports=[_HTTPS])
    try:
        numbers = [int(each) for each in ports.split(",")]
    except ValueError:
        raise ValueError(f"{text}: not of the form HOST[:PORT[,PORT...]]") from None
    if not all(0 < each < 65536 for each in numbers):
        raise ValueError(f"{text}: a port is a number from 1 to 65535")
    return Network.Rule(host=host + bracket + name, ports=numbers)
