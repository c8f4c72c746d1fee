"""NetworkPolicies let through the arrows of ARCHITECTURE.md, and nothing else."""

import ipaddress
from typing import Any, Final

import pytest

from tests.kubernetes.manifests import BASE, MTLS, SINGLE, Object, Pod, of_kind, pods, selects

ANYBODY: Final = "anybody"
DNS: Final = Pod("kube-system", "dns", {"k8s-app": "kube-dns"}, {})
STRANGER: Final = Pod("default", "stranger", {"app.kubernetes.io/name": "cove-gateway"}, {})
NAMES: Final = {("dns", 53)}
NODE_PORTS: Final = (7501, 7502, 7503)
GATEWAY: Final = {
    ("cove-gateway", "cove-registry", 7422),
    *(("cove-gateway", "cove-node", port) for port in NODE_PORTS),
}
DATABASE: Final = ("cove-registry", "cove-database", 5432)
ASK_NAMES: Final = {("cove-gateway", "dns", 53), ("cove-node", "dns", 53)}
EDGES: Final = {
    BASE: GATEWAY | ASK_NAMES | {DATABASE, ("cove-registry", "dns", 53)},
    MTLS: GATEWAY | ASK_NAMES | {DATABASE, ("cove-registry", "dns", 53)},
    SINGLE: GATEWAY | ASK_NAMES,
}
OPEN: Final = {("cove-gateway", 7420), ("cove-gateway", 7421)}
"""To who has a token, wherever."""


def applying(way: str, pod: Pod, direction: str) -> list[Object]:
    return [
        each["spec"]
        for each in of_kind(way, "NetworkPolicy")
        if each["metadata"]["namespace"] == pod.namespace
        and selects(each["spec"]["podSelector"], pod.labels)
        and direction in each["spec"]["policyTypes"]
    ]


def fits(peer: Object, own: Pod, other: Pod) -> bool:
    """Whether a peer of a rule of `own` is `other`."""
    if "ipBlock" in peer:
        return False
    space = peer.get("namespaceSelector")
    there = (
        own.namespace == other.namespace
        if space is None
        else selects(space, {"kubernetes.io/metadata.name": other.namespace})
    )
    return there and selects(peer.get("podSelector", {}), other.labels)


def ports(rule: Object, pod: Pod) -> set[int]:
    assert rule["ports"], "all ports"
    return {
        pod.ports[each["port"]] if isinstance(each["port"], str) else each["port"]
        for each in rule["ports"]
    }


def leaves(way: str, source: Pod, target: Pod) -> set[int]:
    """Ports of `target` that `source` may connect to, as far as its own policies say."""
    found = set()
    for policy in applying(way, source, "Egress"):
        for rule in policy.get("egress", []):
            if any(fits(peer, source, target) for peer in rule.get("to", [])):
                found |= ports(rule, target)
    return found


def enters(way: str, source: Pod, target: Pod) -> set[int]:
    found = set()
    for policy in applying(way, target, "Ingress"):
        for rule in policy.get("ingress", []):
            if "from" not in rule or any(fits(peer, target, source) for peer in rule["from"]):
                found |= ports(rule, target)
    return found


@pytest.mark.parametrize("way", EDGES)
def test_who_reaches_whom(way: str) -> None:
    made = [*pods(way).values()]
    found = set()
    for source in made:
        assert applying(way, source, "Egress")
        assert applying(way, source, "Ingress")
        found |= {(source.name, "dns", port) for port in leaves(way, source, DNS)}
        for target in made:
            both = leaves(way, source, target) & enters(way, source, target)
            found |= {(source.name, target.name, port) for port in both}
            # Nothing is allowed at one end that the other refuses, but what anybody may.
            one = leaves(way, source, target) ^ enters(way, source, target)
            assert {(target.name, port) for port in one} <= OPEN
    assert found == EDGES[way]
    strangers = {(pod.name, port) for pod in made for port in enters(way, STRANGER, pod)}
    assert strangers == OPEN


@pytest.mark.parametrize("way", EDGES)
def test_outside_is_reached_by_nodes_alone_and_nothing_private(way: str) -> None:
    blocks: dict[str, list[Any]] = {}
    for pod in pods(way).values():
        for policy in applying(way, pod, "Egress"):
            for rule in policy.get("egress", []):
                assert rule.get("to"), "anywhere"
                for peer in rule["to"]:
                    if "ipBlock" in peer:
                        assert not peer.keys() - {"ipBlock"}
                        blocks.setdefault(pod.name, []).append(peer["ipBlock"])
    assert {*blocks} == {"cove-node"}

    def reached(address: str) -> bool:
        found = ipaddress.ip_address(address)

        def inside(cidr: str) -> bool:
            network = ipaddress.ip_network(cidr)
            return network.version == found.version and found in network

        return any(
            inside(block["cidr"]) and not any(map(inside, block["except"]))
            for block in blocks["cove-node"]
        )

    assert all(map(reached, ("1.1.1.1", "151.101.0.223", "2606:4700::1111")))
    private = ("10.96.0.1", "172.20.1.1", "192.168.1.1", "100.100.1.1", "169.254.169.254")
    assert not any(map(reached, (*private, "fd00::1", "fe80::1")))
